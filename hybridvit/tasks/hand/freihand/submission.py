"""Predictions in the form that FreiHAND's evaluation takes: `pred.json`, alone or as the one file of a zip archive."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hybridvit.atomic import replacing
from hybridvit.errors import UsageError, some

MEMBER = "pred.json"
_DECIMALS = 7  # of a metre: a ten-thousandth of a millimetre
_SUFFIXES = (".zip", ".json")


def check_ending(path: Path) -> None:
    """Raise UsageError for a file of another kind than FreiHAND takes."""
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"{path} ends neither in .zip nor in .json, and FreiHAND takes nothing else. Rename it.")


class Submission:
    """Collects hands in any order, and writes them in the order of their pictures."""

    def __init__(self, num_pictures: int) -> None:
        self._hands: list[tuple[np.ndarray, np.ndarray] | None] = [None] * num_pictures

    def add(self, numbers: Sequence[int], keypoints: np.ndarray, vertices: np.ndarray) -> None:
        """Take in the hands (b 21 3, b v 3; metres, in the axes of the camera) of the pictures of these numbers."""
        for number, *hand in zip(numbers, keypoints, vertices, strict=True):
            self._hands[number] = (hand[0].astype(np.float64), hand[1].astype(np.float64))

    def write(self, path: str | Path) -> None:
        """Write a .json or a .zip file, whole or not at all.

        Raises UsageError for another ending, or where a picture has no hand; and as `hybridvit.atomic.replacing`.
        """
        path = Path(path)
        check_ending(path)
        missing = [f"{number:08d}.jpg" for number, hand in enumerate(self._hands) if hand is None]
        if missing:
            raise UsageError(
                f"{len(missing):,} of {len(self._hands):,} pictures have no hand ({some(missing)}), but a submission "
                "needs all. Replace the files that could not be read."
            )
        with replacing(path) as temporary:
            if path.suffix == ".zip":
                with (
                    zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
                    archive.open(MEMBER, "w", force_zip64=True) as file,
                ):
                    file.writelines(each.encode() for each in self._text())
            else:
                with temporary.open("w", encoding="utf-8") as file:
                    file.writelines(self._text())

    def _text(self) -> Iterator[str]:
        """[keypoints of all, vertices of all], hand by hand."""
        for part in (0, 1):
            yield "[[" if part == 0 else ", ["
            for number, hand in enumerate(self._hands):
                assert hand is not None, "checked before"
                yield (", " if number else "") + json.dumps(hand[part].round(_DECIMALS).tolist())
            yield "]"
        yield "]"
