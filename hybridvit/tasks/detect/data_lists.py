"""What a data set says of its pictures, whatever its files look like."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hybridvit.data.check_report import Finding, finding
from hybridvit.data.scan import relative
from hybridvit.tasks.detect.data_faults import FAULTS
from hybridvit.tasks.detect.data_masks import RLE

MOST_WITHOUT_MASK = 0.1  # of the objects
UNKNOWN = -1  # the label of an object whose category the data set does not have


class Category(NamedTuple):
    """A class, and what the data set calls it by."""

    id: int | str
    name: str


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What is said of one picture, in the pixels of the picture as it was annotated."""

    path: str
    size: tuple[int, int] | None  # width, height, as the data set says; None: it does not
    boxes: np.ndarray  # n 4 float64: left, top, right, bottom, half open
    labels: np.ndarray  # n int64: index into the categories, or UNKNOWN
    crowd: np.ndarray  # n bool: not one object, or none that is to be found
    areas: np.ndarray  # n float64, which the metric sorts small from large by
    masks: tuple[RLE | None, ...] | None = None  # None where the data set has none

    def kept(self, keep: np.ndarray) -> "Listed":
        """The same with those objects alone."""
        masks = None if self.masks is None else tuple(self.masks[place] for place in np.flatnonzero(keep))
        return Listed(
            path=self.path,
            size=self.size,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            crowd=self.crowd[keep],
            areas=self.areas[keep],
            masks=masks,
        )


class Faults:
    """What a reader stumbles over, by the kinds of FAULTS."""

    def __init__(self) -> None:
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str) -> None:
        """One more of a kind."""
        self._examples[kind].append(example)

    def findings(self) -> list[Finding]:
        """A finding for each kind that was met."""
        return [each for kind, examples in self._examples.items() for each in of_kind(kind, examples)]


def of_kind(kind: str, examples: Iterable[str], number: int | None = None) -> list[Finding]:
    """The finding of a kind, or none without examples."""
    fault = FAULTS[kind]
    return finding(fault.severity, kind, fault.what, examples, number, fix=fault.fix)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The pictures of one split."""

    root: str  # of the data set
    source: str  # the list, or the folder of lists
    kind: str  # COCO, YOLO, ...
    form: str = "xyxy"  # how its boxes are written, of which "xywh" is the other way
    pictures: tuple[Listed, ...]
    categories: tuple[Category, ...]
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def has_masks(self) -> bool:
        """Whether masks can be learnt: all objects have one but for a tenth at most, which then count neither way."""
        total = sum(len(each.boxes) for each in self.pictures)
        having = sum(mask is not None for each in self.pictures for mask in each.masks or ())
        return having > 0 and having >= (1 - MOST_WITHOUT_MASK) * total

    @property
    def fingerprint(self) -> str:
        """Of the paths and of all that is said."""
        digest = hashlib.sha256(repr(self.categories).encode())
        for each in self.pictures:
            digest.update(os.fsencode(relative(each.path, self.root)) + b"\0")
            for values in (each.boxes, each.labels, each.crowd):
                digest.update(np.ascontiguousarray(values).tobytes() + b"\0")
            for mask in each.masks or ():
                digest.update(b"" if mask is None else bytes(mask["counts"]))
        return digest.hexdigest()


@dataclass(kw_only=True)
class Drafted:
    """The objects of a picture while a list is read."""

    boxes: list[Sequence[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float | None] = field(default_factory=list)
    masks: list[RLE | None] = field(default_factory=list)

    def add(
        self,
        box: Sequence[float],
        label: int,
        *,
        crowd: bool = False,
        area: float | None = None,
        mask: RLE | None = None,
    ) -> None:
        """One more object; without an area it has that of its box."""
        self.boxes.append(box)
        self.labels.append(label)
        self.crowd.append(crowd)
        self.areas.append((box[2] - box[0]) * (box[3] - box[1]) if area is None else area)
        self.masks.append(mask)

    def listed(self, path: str, size: tuple[int, int] | None) -> Listed:
        """The picture with them."""
        return Listed(
            path=path,
            size=size,
            boxes=np.array(self.boxes, np.float64).reshape(-1, 4),
            labels=np.array(self.labels, np.int64),
            crowd=np.array(self.crowd, bool),
            areas=np.array(self.areas, np.float64),
            masks=tuple(self.masks) if any(mask is not None for mask in self.masks) else None,
        )
