"""The handwritten digits that ship with scikit-learn, written out as an image folder."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.data.encoded import ImageOptions
from hybridvit.data.folder import open_folders
from hybridvit.data.samples import Opened
from hybridvit.data.written import write_pictures
from hybridvit.errors import UsageError

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig

NUM_TEST = 360
DEFAULT_FOLDER = "runs/data/digits"


def write_digits(folder: str | os.PathLike[str]) -> str:
    """Write 1,437 training and 360 test images as folder/{train,test}/{0..9}/<number>.png; returns what was done.

    1,797 real digits (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0) as grey PNG of 8x8 pixels, as
    they ship: 17 levels spread over 0..255, nothing enlarged or smoothed. The split is fixed, with 36 test images
    of every digit; writers are not recorded, so test digits share writers with training digits.

    A complete folder is left as it is, and one appears complete or not at all. Raises `UsageError` without
    scikit-learn, `DatasetError` if the folder holds something else, `DiskFull`.
    """
    digits = digits_by_file()
    if not write_pictures(folder, digits, "digits"):
        return f"The handwritten digits are already in {folder}"
    return f"Wrote {len(digits) - NUM_TEST:,} training and {NUM_TEST} test images of handwritten digits to {folder}"


def open_digits(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """The digits as an image folder in data.root, written if they are not there. Raises as `write_digits`."""
    folder = Path(data.root or DEFAULT_FOLDER).expanduser()
    write_digits(folder)
    return open_folders(replace(data, root=str(folder)), train, validation)


def digits_by_file() -> dict[str, np.ndarray]:
    """The 8x8 bytes of each digit by its path, {train,test}/{0..9}/<number>.png. Raises UsageError without sklearn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(
            "The digits data set ships with scikit-learn, which is not installed. "
            'Run: pip install "hybridvit[digits]" (or pip install scikit-learn).'
        ) from error
    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    dice = np.random.RandomState(0)  # its stream is frozen by NumPy's promise, unlike default_rng's
    test: set[int] = set()
    for digit in range(10):
        members = dice.permutation(np.flatnonzero(data.target == digit))
        test.update(members[: NUM_TEST // 10].tolist())
    return {
        f"{'test' if number in test else 'train'}/{digit}/{number:04d}.png": pixels[number]
        for number, digit in enumerate(data.target.tolist())
    }
