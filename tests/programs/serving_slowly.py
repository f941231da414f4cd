"""Serve as `hybridvit serve` does, with a runtime that takes its time: serving_slowly.py SECONDS WORD..."""

import sys
import time

import numpy as np

from hybridvit.cli import main
from hybridvit.export.targets.onnx import OnnxRunner

run_at_once = OnnxRunner.run


def run(self: OnnxRunner, images: np.ndarray) -> list[np.ndarray]:
    """The outputs, after so many seconds."""
    time.sleep(float(sys.argv[1]))
    return run_at_once(self, images)


OnnxRunner.run = run  # type: ignore[method-assign]  # also in the model's process, which imports this file too

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[2:]]))
