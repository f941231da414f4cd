"""Which images an int8 export calibrates on and is judged by, and what it may not touch."""

import fnmatch
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hybridvit.batch import Sample
from hybridvit.card import ModelCard
from hybridvit.data.samples import LabelledImages, Samples
from hybridvit.data.scan import relative, subfolders
from hybridvit.errors import DatasetError, UsageError, nearest
from hybridvit.models.registry import is_tower
from hybridvit.task import find_task

USUAL_CALIBRATION = 128  # images, if there are so many


@dataclass(frozen=True)
class Chosen:
    """Some of the samples that a task finds in a folder, in this order."""

    folder: str
    paths: tuple[str, ...]

    def opened(self, card: ModelCard) -> Samples:
        """With what is true of them, prepared as the card says."""
        return _Some(_samples(self.folder, card), self.paths)


@dataclass(frozen=True, kw_only=True)
class QuantisationPlan:
    """How a model becomes one of 8-bit integers. `plan_from_folder` makes one.

    Raises UsageError for a budget that is none, or for no images.
    """

    calibration: Chosen  # that the ranges are taken from
    labelled: Chosen  # others, that the quality is measured on
    max_drop: float | None = None  # of the task's headline, in its unit or points; None: whatever it costs
    keep: tuple[str, ...] = ()  # layers, blocks or patterns of their names (*) that stay in floating point

    def __post_init__(self) -> None:
        if not self.calibration.paths or not self.labelled.paths:
            raise UsageError(
                f"The plan has {len(self.calibration.paths)} images to calibrate on and {len(self.labelled.paths)} to "
                "measure, but it needs at least one of each. Use plan_from_folder."
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
    """Calibrate on `num_calibration` images of the folder, taken evenly over the classes where there are some.

    By default on 128, or as many as the folder allows. The same files give the same choice on every machine. The others
    measure what the integers cost, or all in `labelled`. What is true of the images is found as the card's task does
    it. Raises DatasetError as that does, or for too few images; UsageError for numbers that cannot be.
    """
    if num_calibration is not None and (type(num_calibration) is not int or num_calibration < 1):
        raise UsageError(f"num_calibration is {num_calibration!r}, but must be a whole number of images from 1.")
    folder = os.fspath(folder)
    samples = _samples(folder, card)
    most = len(samples) if labelled is not None else len(samples) // 2
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
            f"{folder} has {len(samples)} images{others}, but {num_calibration} are wanted for the calibration. "
            f"Calibrate on {most} or fewer{fix}, or add images."
        )
    chosen = _evenly(samples, folder, num_calibration)
    if labelled is not None:
        measured = Chosen(os.fspath(labelled), tuple(_samples(os.fspath(labelled), card).paths))
    else:
        measured = Chosen(folder, tuple(path for path in samples.paths if path not in chosen))
    return QuantisationPlan(calibration=Chosen(folder, chosen), labelled=measured, max_drop=max_drop, keep=tuple(keep))


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
                f"'{name}' is to be kept in floating point, but no layer of the folded model has that name. "
                f"{nearest(name, sorted(blocks | set(layers)))}. A block's name or a pattern such as 'stages.0.*' does "
                "too."
            )
        kept.update(fits)
    return tuple(layer for layer in layers if layer in kept)


def _samples(folder: str, card: ModelCard) -> Samples:
    """The labelled pictures in a folder; to an image tower, which knows no classes, its own are as good as any."""
    if is_tower(card) and os.path.isdir(folder):
        names = tuple(subfolders(folder))
        card = replace(card, class_names=names, options={**card.options, "num_classes": len(names)})
    return find_task(card.task).labelled(folder, card)


class _Some(Samples):
    """Those of `samples` with these paths, numbered anew."""

    def __init__(self, samples: Samples, paths: Sequence[str]) -> None:
        places = {path: place for place, path in enumerate(samples.paths)}
        self._samples, self._places = samples, [places[path] for path in paths]
        self.paths, self.fingerprint, self.normalisation = paths, samples.fingerprint, samples.normalisation
        self.sizes_differ = samples.sizes_differ

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        return self._samples.draw(epoch, self._places[index], step)._replace(number=index)


def _evenly(samples: Samples, root: str, count: int) -> tuple[str, ...]:
    """So many paths, class after class in turn; inside a class the hash of the path below `root` decides."""
    labels = samples.labels if isinstance(samples, LabelledImages) else [0] * len(samples)
    ranked = sorted(
        zip(samples.paths, labels, strict=True),
        key=lambda each: hashlib.sha256(os.fsencode(relative(each[0], root))).digest(),
    )
    seen: Counter[int] = Counter()
    order = []
    for path, label in ranked:
        order.append((seen[label], label, path))
        seen[label] += 1
    return tuple(path for _, _, path in sorted(order)[:count])
