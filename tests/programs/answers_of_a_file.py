"""Run an exported file on images, one by one, two by two and all at once: FILE IMAGES.npy LOGITS.npy."""

import sys

import numpy as np

from hybridvit.export import load_runner

if __name__ == "__main__":
    file, given, answered = sys.argv[1:]
    runner, images = load_runner(file), np.load(given)
    logits = [
        np.concatenate([runner(images[start : start + batch])["logits"] for start in range(0, len(images), batch)])
        for batch in (1, 2, len(images))
    ]
    np.save(answered, np.stack(logits))
