"""Check, pack and train with the start method of Windows and macOS: what starts processes must not count on fork.

python spawned.py FOLDER SOURCE-WORKERS...

It writes its images and runs into FOLDER, trains from each SOURCE (folder or shards) with so many workers, and prints
the SHA-256 of each trained model.
"""

import hashlib
import multiprocessing
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.cli.main import main


def write_photos(root: Path) -> None:
    """Two classes of eight pictures for training and of two for validation."""
    noise = np.random.default_rng(0)
    for split, number in (("train", 8), ("val", 2)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for index in range(number):
                pixels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{index}.png")


def trained(folder: Path, *, source: str, root: Path, workers: int) -> str:
    """The digest of a model trained for two steps."""
    output = folder / f"{source}-{workers}"
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "model: fastvit_debug\naccelerator: cpu\nschedule: {epochs: 1, warmup_epochs: 0}\n"
        f"data: {{source: {source}, root: '{root}', image_size: 32, total_batch: 8, workers: {workers}}}\n",
        encoding="utf-8",
    )
    assert main(["train", "--config", str(recipe), "--output", str(output)]) == 0
    return hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    folder = Path(sys.argv[1])
    photos, shards = folder / "photos", folder / "shards"
    write_photos(photos)
    assert main(["check-data", str(photos), "--workers", "2"]) == 0
    assert main(["shard", str(photos), str(shards)]) == 0
    for word in sys.argv[2:]:
        source, _, workers = word.partition("-")
        root = shards if source == "shards" else photos
        print(f"model {word}", trained(folder, source=source, root=root, workers=int(workers)))
