"""What `hybridvit batch` makes of a machine, beside `hybridvit predict` on the same pictures, in turns.

    python benchmarks/batch_jobs.py MODEL [--images 320] [--rounds 3]

Pictures are JPEGs of 500x375. The images per second are those of the steady state: of predict from its 32nd answer to
its last, of batch from each worker's first part to its last. The last line is JSON.
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
from pyarrow import parquet

from hybridvit.jobs.unit import RECEIPT
from hybridvit.machine.facts import usable_cores

UNIT = 32


def write_photos(folder: Path, number: int) -> Path:
    """Smooth noise, which compresses as photographs do."""
    folder.mkdir()
    for index in range(number):
        small = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg", quality=90)
    return folder


def command(*words: object) -> list[str]:
    """A command of hybridvit."""
    return [sys.executable, "-m", "hybridvit", *map(str, words)]


def of_predict(model: Path, photos: Path) -> float:
    """Images per second."""
    times = []
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    words = command("predict", model, photos, "--json", "--batch", 16)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            times.append(time.perf_counter())
    return (len(times) - UNIT) / (times[-1] - times[UNIT - 1])


def of_batch(model: Path, photos: Path, output: Path, workers: int) -> float:
    """Images per second of all workers."""
    words = ("--workers", workers, "--cpus_per_worker", usable_cores() // workers, "--unit", UNIT)
    subprocess.run(command("batch", model, photos, "--output", output, *words), check=True, capture_output=True)
    times: dict[str, list[float]] = {}
    for part in output.glob("part-*"):
        receipt = json.loads(parquet.read_metadata(part).metadata[RECEIPT.encode()])
        times.setdefault(receipt["worker"], []).append(part.stat().st_mtime)
    return sum(UNIT * (len(each) - 1) / (max(each) - min(each)) for each in times.values() if len(each) > 1)


def main() -> None:
    """Take turns, and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        photos = write_photos(Path(name, "photos"), given.images)
        for number in range(given.rounds):
            found.setdefault("predict", []).append(of_predict(given.model, photos))
            for workers in sorted({1, min(2, usable_cores())}):
                pace = of_batch(given.model, photos, Path(name, f"{number}-{workers}"), workers)
                found.setdefault(f"batch, workers: {workers}", []).append(pace)
    for name, values in found.items():
        ratio = statistics.median(value / other for value, other in zip(values, found["predict"], strict=True))
        print(f"{name:<20} {statistics.median(values):8.2f} images/s   {ratio:.2f}x predict")
    facts = {"model": given.model.name, "images": given.images, "cores": usable_cores(), "load": os.getloadavg()[0]}
    print(json.dumps(facts | {"images_per_second": {name: statistics.median(each) for name, each in found.items()}}))


if __name__ == "__main__":
    main()
