"""What `hybridvit batch` makes of a machine, beside `hybridvit predict` on the same pictures, in turns.

    python benchmarks/batch_jobs.py MODEL [--images 400] [--rounds 3]

Pictures are JPEGs of 500x375. The images per second are of whole commands without what one picture takes (their start);
the last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.machine.facts import usable_cores


def write_photos(folder: Path, number: int) -> Path:
    """Smooth noise, which compresses as photographs do."""
    folder.mkdir()
    for index in range(number):
        small = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg", quality=90)
    return folder


def seconds_of(*words: object) -> float:
    """How long a command takes. It has to end with 0."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hybridvit", *map(str, words)], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Take turns, and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sets = {count: write_photos(root / f"{count}", count) for count in (2, given.images)}
        for number in range(given.rounds):
            seconds: dict[str, dict[int, float]] = {}
            for count, photos in sets.items():
                words: dict[str, tuple[object, ...]] = {
                    "predict": ("predict", given.model, photos, "--output", root / f"{number}-{count}.parquet")
                }
                for workers in sorted({1, min(2, usable_cores())}):
                    output = root / f"{number}-{count}-{workers}"
                    threads = usable_cores() // workers
                    words[f"batch, {workers} x {threads} threads"] = (
                        *("batch", given.model, photos, "--output", output, "--workers", workers, "--unit", 32),
                        *("--cpus_per_worker", threads),
                    )
                for each, command in words.items():
                    seconds.setdefault(each, {})[count] = seconds_of(*command)
            for each, times in seconds.items():
                found.setdefault(each, []).append((given.images - 2) / (times[given.images] - times[2]))
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    for name, values in found.items():
        ratio = statistics.median(value / other for value, other in zip(values, found["predict"], strict=True))
        print(f"{name:<24} {medians[name]:8.2f} images/s   {ratio:.2f}x predict")
    facts = {"model": given.model.name, "images": given.images, "cores": usable_cores(), "load": os.getloadavg()[0]}
    print(json.dumps(facts | {"images_per_second": medians}))


if __name__ == "__main__":
    main()
