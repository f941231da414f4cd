"""Which images an int8 export calibrates on and is judged by, and what it may not touch."""

import fnmatch
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.preprocess import prepare
from hybridvit.data.scan import Listing, scan_folder
from hybridvit.errors import DatasetError, UsageError, nearest

BATCH = 32  # images in memory at a time
USUAL_CALIBRATION = 128  # images, if there are so many


@dataclass(frozen=True, kw_only=True)
class QuantisationPlan:
    """How a model becomes one of 8-bit integers. `plan_from_folder` makes one.

    Raises UsageError for a budget that is none, or labels that are not one for each image.
    """

    calibration: tuple[str, ...]  # image files that the ranges are taken from
    labelled: tuple[str, ...]  # other image files, that the accuracy is measured on
    labels: tuple[int, ...]  # their classes
    max_drop: float | None = None  # points of top-1 accuracy that may be lost; None: whatever it costs
    keep: tuple[str, ...] = ()  # layers, blocks or patterns of their names (*) that stay in floating point

    def __post_init__(self) -> None:
        if not self.calibration or not self.labelled or len(self.labelled) != len(self.labels):
            raise UsageError(
                f"The plan has {len(self.calibration)} images to calibrate on, {len(self.labelled)} to measure and "
                f"{len(self.labels)} labels, but it needs at least one of each, and a label for each image that is "
                "measured. Use plan_from_folder."
            )
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(
                f"max_drop is {self.max_drop}, but must be a number of percentage points from 0, such as 0.5. Leave it "
                "out to accept any loss."
            )


def plan_from_folder(
    folder: str | os.PathLike[str],
    card: ModelCard,
    *,
    labelled: str | os.PathLike[str] | None = None,
    num_calibration: int | None = None,
    max_drop: float | None = None,
    keep: Sequence[str] = (),
) -> QuantisationPlan:
    """Calibrate on `num_calibration` images of root/<class>/<image>, taken evenly over the classes.

    By default on 128, or as many as the folder allows. The same files give the same choice on every machine. The others
    measure the accuracy, or all in `labelled`. Classes are matched by name with the card's. Raises DatasetError for a
    folder that is empty, not labelled, has classes that the model does not know, or too few images; UsageError for
    numbers that cannot be.
    """
    if num_calibration is not None and (type(num_calibration) is not int or num_calibration < 1):
        raise UsageError(f"num_calibration is {num_calibration!r}, but must be a whole number of images from 1.")
    listing = _scan(folder, card)
    most = len(listing.paths) if labelled is not None else len(listing.paths) // 2
    if most == 0:
        raise DatasetError(
            f"{folder} has one image, but int8 needs one to calibrate on and another to measure the accuracy. Add "
            "images, or name another folder that measures it."
        )
    if num_calibration is None:
        num_calibration = min(USUAL_CALIBRATION, most)
    if num_calibration > most:
        others = "" if labelled is not None else ", at least half of which have to measure the accuracy"
        fix = "" if labelled is not None else ", or name another folder that measures it"
        raise DatasetError(
            f"{folder} has {len(listing.paths)} images{others}, but {num_calibration} are wanted for the calibration. "
            f"Calibrate on {most} or fewer{fix}, or add images."
        )
    chosen = _evenly(listing, num_calibration)
    if labelled is not None:
        measured = _scan(labelled, card)
        paths, labels = measured.paths, measured.labels
    else:
        rest = sorted(set(range(len(listing.paths))).difference(chosen))
        paths, labels = tuple(listing.paths[i] for i in rest), tuple(listing.labels[i] for i in rest)
    return QuantisationPlan(
        calibration=tuple(listing.paths[place] for place in chosen),
        labelled=paths,
        labels=labels,
        max_drop=max_drop,
        keep=tuple(keep),
    )


def batches(paths: Sequence[str], preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    """The images (n c h w) of files, prepared, some at a time."""
    for start in range(0, len(paths), BATCH):
        yield np.stack([prepare(path, preprocessing) for path in paths[start : start + BATCH]])


def matching(keep: Iterable[str], layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that `keep` names: themselves, the blocks they are in, or by a pattern.

    Raises UsageError for a name that fits none.
    """
    kept = set()
    for name in keep:
        fits = [layer for layer in layers if layer.startswith(f"{name}.") or fnmatch.fnmatchcase(layer, name)]
        if not fits:
            blocks = {layer.rsplit(".", depth)[0] for layer in layers for depth in range(3)}
            raise UsageError(
                f"'{name}' is to be kept in floating point, but no layer of the folded model has that name. Nearest: "
                f"{nearest(name, sorted(blocks | set(layers)))}. A block's name or a pattern such as 'stages.0.*' does "
                "too."
            )
        kept.update(fits)
    return tuple(layer for layer in layers if layer in kept)


def _scan(folder: str | os.PathLike[str], card: ModelCard) -> Listing:
    listing = scan_folder(folder, card.class_names or None)
    num_classes = card.options.get("num_classes", 1000)
    if len(listing.class_names) != num_classes:
        raise DatasetError(
            f"{folder} has {len(listing.class_names)} class folders, but the model answers with {num_classes} classes "
            "and does not name them. Give a folder with exactly these classes, in the order of their names."
        )
    return listing


def _evenly(listing: Listing, count: int) -> list[int]:
    """So many places in the listing, class after class in turn; inside a class the hash of the path decides."""
    seen: dict[int, int] = {}
    order = []
    for place in sorted(range(len(listing.paths)), key=lambda place: _rank(listing, place)):
        label = listing.labels[place]
        order.append((seen.get(label, 0), label, place))
        seen[label] = seen.get(label, 0) + 1
    return [place for _, _, place in sorted(order)[:count]]


def _rank(listing: Listing, place: int) -> bytes:
    return hashlib.sha256(os.fsencode(os.path.relpath(listing.paths[place], listing.root))).digest()
