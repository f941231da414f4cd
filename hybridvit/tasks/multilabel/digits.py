"""Up to four of the handwritten digits that ship with scikit-learn in one picture: which ones are there?"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hybridvit.data.digits import digits_by_file
from hybridvit.data.encoded import ImageOptions
from hybridvit.data.written import write_pictures
from hybridvit.tasks.multilabel.config import SEPARATORS, MultilabelData
from hybridvit.tasks.multilabel.data import ListedFiles, open_tables

DEFAULT_FOLDER = "runs/data/several_digits"
SIZES = {"train": 3000, "test": 500}  # pictures
CELL_PX, DIGIT_PX = 12, 8  # four cells make a picture, and a digit lies anywhere in its own


def write_several_digits(folder: str | os.PathLike[str]) -> bool:
    """Write pictures and the tables folder/{train,test}.csv with the digits in each; False if they are there.

    A picture is grey, of 24x24 pixels, with none to four digits in its quarters; those of the test pictures are the
    test digits of `write_digits`. Raises as `write_pictures`, and UsageError without scikit-learn.
    """
    digits = digits_by_file()
    pictures, tables = dict[str, np.ndarray](), dict[str, str]()
    for number, (split, count) in enumerate(SIZES.items()):
        known = [(name.split("/")[1], pixels) for name, pixels in digits.items() if name.startswith(split)]
        rows = ["path,labels"]
        dice = np.random.RandomState(number)  # its stream is frozen by NumPy's promise, unlike default_rng's
        for place, (pixels, labels) in enumerate(_drawn(known, count, dice)):
            name = f"{split}/{place:04d}.png"
            pictures[name] = pixels
            rows.append(f"{name},{SEPARATORS[0].join(sorted(labels))}")
        tables[f"{split}.csv"] = "\n".join(rows) + "\n"
    return write_pictures(folder, pictures, "pictures of several digits", tables)


def open_several_digits(
    data: MultilabelData, train: ImageOptions, validation: ImageOptions
) -> tuple[ListedFiles, ListedFiles]:
    """The two tables in data.root, written if they are not there. Raises as `write_several_digits`."""
    folder = Path(data.root or DEFAULT_FOLDER).expanduser()
    write_several_digits(folder)
    return open_tables(replace(data, root=str(folder)), train, validation)


def _drawn(
    known: list[tuple[str, np.ndarray]], count: int, dice: np.random.RandomState
) -> Iterator[tuple[np.ndarray, set[str]]]:
    for _ in range(count):
        picture, labels = np.zeros((2 * CELL_PX, 2 * CELL_PX), np.uint8), set[str]()
        for cell in dice.permutation(4)[: dice.randint(5)]:
            label, pixels = known[dice.randint(len(known))]
            top, left = CELL_PX * np.array(divmod(cell, 2)) + dice.randint(CELL_PX - DIGIT_PX + 1, size=2)
            picture[top : top + DIGIT_PX, left : left + DIGIT_PX] = pixels
            labels.add(label)
        yield picture, labels
