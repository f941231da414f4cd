"""The class of each pixel of a picture, as a model says."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.card import ModelCard
from hybridvit.data.tiles import TilePart
from hybridvit.errors import UsageError
from hybridvit.scores import Columns, Result
from hybridvit.task import Outputs
from hybridvit.tasks.segment.masks import Colour, distinct_colours

ANSWER = "logits"  # what a model gives: b classes h w, of the size of its input
LABELS = "labels"  # b h w, where the largest is taken already
TOP = 5
SAME = 0.99  # share of the pixels on which two answers agree that are the same to a person
OPACITY = 0.5
_MOST_BYTES = 1 << 24  # of logits in the picture's size, at once; more would take new memory for each part


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentResult(Result):
    """The class of each pixel of one picture."""

    names: Sequence[str]
    palette: Sequence[Colour]  # of the classes
    labels: np.ndarray  # h w, uint8
    most: int | None = None  # classes to name; None: the largest five

    @cached_property
    def shares(self) -> list[tuple[int, float]]:
        """The classes that there are with their shares of the picture, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return [(label, counts[label] / self.labels.size) for label in order.tolist() if counts[label]]

    def to_dict(self) -> dict[str, Any]:
        """The shares of the classes; which pixels they are is in the label PNG."""
        shown = self.shares[: self.most or len(self.shares)]
        classes = [{"class": self.names[label], "index": label, "share": round(share, 6)} for label, share in shown]
        return {"height": self.labels.shape[0], "width": self.labels.shape[1], "classes": classes}

    @property
    def columns(self) -> Columns:
        return {"height": int, "width": int, "classes": [{"class": str, "index": int, "share": float}]}

    def lines(self) -> list[str]:
        return [f"  {100 * share:6.2f} %  {self.names[label]}" for label, share in self.shares[: self.most or TOP]]

    @property
    def colours(self) -> dict[str, Colour]:
        return {self.names[label]: self.palette[label] for label, _ in self.shares}

    def agrees(self, other: Result) -> bool:
        """The same class for 99 of 100 pixels."""
        if not isinstance(other, SegmentResult) or other.labels.shape != self.labels.shape:
            return False
        return float((self.labels == other.labels).mean()) >= SAME

    def draw(self, picture: Image.Image) -> Image.Image:
        """The picture under the colours of the classes."""
        colours = np.array(self.palette, np.uint8)[self.labels]
        over = Image.fromarray(colours).resize(picture.size, Image.Resampling.NEAREST)
        return Image.blend(picture.convert("RGB"), over, OPACITY)

    def files(self) -> dict[str, bytes]:
        """The label of each pixel as PNG, with the colours of the classes as its palette."""
        image = Image.fromarray(self.labels)
        image.putpalette([level for colour in self.palette for level in colour])
        file = io.BytesIO()
        image.save(file, "PNG")
        return {"labels.png": file.getvalue()}


def results_of(
    outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, most: int | None = None
) -> Sequence[SegmentResult]:
    """The classes of the pixels of each picture, in its own size. Raises UsageError for outputs without any."""
    if ANSWER not in outputs and LABELS not in outputs:
        raise UsageError(
            f"gives {', '.join(outputs)}, so it names no classes of pixels. Call what `hybridvit.load` opens, or "
            "export the model again with --returns segmentation."
        )
    names, palette = names_of(card), palette_of(card)
    return [
        SegmentResult(names=names, palette=palette, labels=labels, most=most) for labels in labels_of(outputs, frames)
    ]


def labels_of(outputs: Outputs, frames: Sequence[Frame | None]) -> Iterator[np.ndarray]:
    """The label of each pixel (uint8) of each picture, in its own size."""
    given = outputs[LABELS] if LABELS in outputs else outputs[ANSWER]
    for row, frame in zip(np.asarray(given), frames, strict=True):
        yield _in_size(*placed(row[None], frame)) if LABELS in outputs else largest(*placed(row, frame))


def _in_size(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(labels[0].astype(np.uint8))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))


def joined(parts: Iterable[TilePart], picture_size: tuple[int, int]) -> Outputs:
    """The labels of a large picture (height, width), each from the tile that decides it, away from its edges.

    Logits are kept of one group of tiles at a time.
    """
    labels = np.zeros((1, *picture_size), np.uint8)
    for tile, outputs, frame in parts:
        left, top, right, bottom = tile.core
        (found,) = labels_of(outputs, [frame])
        rows, columns = slice(top - tile.top, bottom - tile.top), slice(left - tile.left, right - tile.left)
        labels[0, top:bottom, left:right] = found[rows, columns]
    return {LABELS: labels}


def names_of(card: ModelCard) -> tuple[str, ...]:
    """The card's classes, or their numbers if it names none."""
    return card.class_names or tuple(f"class_{number}" for number in range(card.options["num_classes"]))


def palette_of(card: ModelCard) -> tuple[Colour, ...]:
    """The colour of each class: the card's, or distinct ones if it has none."""
    return card.class_facts.get("palette") or distinct_colours(len(names_of(card)))


def placed(maps: Any, frame: Frame | None) -> tuple[Any, tuple[int, int]]:
    """The part of maps (k h w) that shows the picture, and the picture's size, (height, width)."""
    if frame is None:
        return maps, maps.shape[1:]
    height, width = frame.input_size
    return maps[:, :height, :width], frame.picture_size


def largest(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The class (uint8) with the largest logit of each pixel of a picture of (height, width): bilinear, then arg-max.

    A few classes at a time, so that memory does not grow with their number, and only those that can be the largest
    anywhere: of 150, a picture shows a few.
    """
    best = np.full(size, -np.inf, np.float32)
    labels = np.zeros(size, np.uint8)
    candidates = can_be_largest(logits)
    at_once = max(1, _MOST_BYTES // (4 * size[0] * size[1]))
    for start in range(0, len(candidates), at_once):
        group = candidates[start : start + at_once]
        found = resized(logits[group], size)
        places = found.argmax(0)
        values = np.take_along_axis(found, places[None], 0)[0]
        better = values > best
        labels[better] = group[places[better]]
        best = np.maximum(best, values)
    return labels


def can_be_largest(logits: np.ndarray) -> np.ndarray:
    """The classes of logits (classes h w) that may be the largest somewhere once these are resized.

    What is interpolated between four neighbours is no larger than the largest and no smaller than the smallest of them,
    so that a class is out of the question where its largest lies below the smallest of another.
    """
    surely = np.maximum.reduce([_of_neighbours(each, np.minimum) for each in logits])
    return np.flatnonzero([(_of_neighbours(each, np.maximum) >= surely).any() for each in logits])


def _of_neighbours(values: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The extreme of each value (h w), the one below, the one to the right and the one between these."""
    rows = extreme(values[:-1], values[1:]) if len(values) > 1 else values
    return extreme(rows[:, :-1], rows[:, 1:]) if rows.shape[1] > 1 else rows


def resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps (k h w) in another size, bilinear, as `torch.nn.functional.interpolate` without aligned corners."""
    for axis, side in ((1, size[0]), (2, size[1])):
        before = maps.shape[axis]
        if before == side:
            continue
        place = np.clip((np.arange(side) + 0.5) * (before / side) - 0.5, 0, before - 1)
        low = place.astype(np.int64)
        share = (place - low).astype(np.float32)
        share = share[:, None] if axis == 1 else share
        maps = maps.take(low, axis) * (1 - share) + maps.take(np.minimum(low + 1, before - 1), axis) * share
    return maps
