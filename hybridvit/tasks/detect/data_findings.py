"""What is wrong with the boxes of a data set: said by `check-data`, and before the first step of a training."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hybridvit.data.check_contents import Contents, Looked
from hybridvit.data.check_report import Finding
from hybridvit.data.decode import size_of, turned
from hybridvit.data.listing import Labels
from hybridvit.data.scan import relative
from hybridvit.errors import ImageDecodeError
from hybridvit.tasks.detect.data_lists import Faults, Listed, Split, of_kind
from hybridvit.tasks.detect.overlap import areas, overlap

BEYOND_PX, FAR_SHARE = 1.0, 0.2  # of a box outside of its picture: what is cut off, what is an error
ALIKE = 0.98  # IoU
MOST_CROWDS = 0.2
MOST_LOOKED_AT = 2000  # pictures of a split whose headers are read before a training


class Header(NamedTuple):
    """What the header of a picture file says."""

    stored: tuple[int, int]  # width, height
    orientation: int  # EXIF

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as the picture is shown."""
        return turned(self.stored, self.orientation)


def contents_of(root: str, splits: Mapping[str, Split]) -> Contents:
    """The data set for `check-data`: its pictures with the sets of their classes, and all findings."""
    names = [category.name for category in next(iter(splits.values())).categories]
    sets, rows, of_splits = dict[Labels, int](), list[tuple[int, int, bytes]](), dict[str, Sequence[str]]()
    findings = list[Finding]()
    for number, (name, split) in enumerate(splits.items()):
        present = set[int]()
        for each in _unique(split.pictures):
            labels = tuple(sorted({int(label) for label in each.labels if label >= 0}))
            present.update(labels)
            if os.path.isfile(each.path):
                rows.append((number, sets.setdefault(labels, len(sets)), os.fsencode(relative(each.path, root))))
        of_splits[name] = names if not number else [names[label] for label in sorted(present)]
        findings += findings_of(split)

    def further(looked: Mapping[str, Looked], workers: int) -> Iterable[Finding]:
        def header(path: str) -> Header | None:
            found = looked.get(relative(path, root))
            if found is None or found.size is None:
                return None
            return Header(turned(found.size, found.orientation), found.orientation)

        for split in splits.values():
            yield from findings_of_sizes(split, split.pictures, header)

    return Contents(
        root=root,
        names=names,
        splits=of_splits,
        sets=list(sets),
        rows=rows,
        findings=_together(findings),
        of_pictures=False,
        further=lambda looked, workers: _together(further(looked, workers)),
    )


def findings_before_training(split: Split) -> list[Finding]:
    """Those that need no picture decoded; the headers of some are read."""
    there = [each for each in split.pictures if os.path.isfile(each.path)]
    some = there[:: max(1, -(-len(there) // MOST_LOOKED_AT))]
    return [*findings_of(split), *findings_of_sizes(split, some, _header)]


def findings_of(split: Split) -> list[Finding]:
    """What the list alone tells, and whether its pictures are there."""
    missing = [relative(each.path, split.root) for each in split.pictures if not os.path.isfile(each.path)]
    return [*split.findings, *of_kind("missing-image", missing), *_of_boxes(split), *_crowds(split), *_masks(split)]


def findings_of_sizes(
    split: Split, pictures: Sequence[Listed], header: Callable[[str], Header | None]
) -> list[Finding]:
    """What the files tell of the sizes that the list has; `header` gives None for a file that cannot be read."""
    faults = Faults()
    for each in pictures:
        found = header(each.path)
        if found is None or each.size is None:
            continue
        name = relative(each.path, split.root)
        unclear = found.orientation != 1 and found.stored == found.upright
        if unclear and len(each.boxes):
            faults.add("turn-unclear", name)
        if each.size in (found.stored, found.upright):
            if each.size != found.upright:
                faults.add("image-turned", name)
        else:
            width, height = found.upright
            faults.add("image-size", f"{name}: {width}x{height}, listed as {each.size[0]}x{each.size[1]}")
    return faults.findings()


def usable(split: Split) -> Split:
    """The split without what its findings say is left out: boxes without extent, and pictures listed twice."""
    kept = [each.kept(_has_extent(each.boxes)) for each in _unique(split.pictures)]
    return dataclasses.replace(split, pictures=tuple(kept))


def _header(path: str) -> Header | None:
    try:
        return Header(*size_of(path))
    except ImageDecodeError:
        return None


def _unique(pictures: Sequence[Listed]) -> list[Listed]:
    return list({each.path: each for each in reversed(pictures)}.values())[::-1]


def _together(findings: Iterable[Finding]) -> list[Finding]:
    """One finding of each kind, whatever the split."""
    by_kind: dict[str, list[Finding]] = {}
    for each in findings:
        by_kind.setdefault(each.kind, []).append(each)
    merged = list[Finding]()
    for kind, several in by_kind.items():
        examples = [example for each in several for example in each.examples]
        merged += of_kind(kind, examples, sum(each.number for each in several))
    return merged


def _has_extent(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & np.isfinite(boxes).all(1)


def _of_boxes(split: Split) -> list[Finding]:
    if found := _wrong_form(split):
        return found
    faults = Faults()
    for each in split.pictures:
        name = relative(each.path, split.root)
        for place in np.flatnonzero(~_has_extent(each.boxes)):
            faults.add("empty-box", f"{name}: {_text(each.boxes[place])}")
        size = each.size
        if size is not None:
            for number, kind in _beyond(each.boxes, size):
                faults.add(kind, f"{name} ({size[0]}x{size[1]}): {_text(each.boxes[number])}")
        for place in _duplicates(each):
            faults.add("duplicate-box", f"{name}: {_text(each.boxes[place])}")
    return faults.findings()


def _wrong_form(split: Split) -> list[Finding]:
    """Where most boxes make no sense as they are read, and do in another way, that alone is worth saying."""
    with_boxes = [each for each in split.pictures if len(each.boxes)]
    boxes = np.concatenate([each.boxes for each in with_boxes]) if with_boxes else np.empty((0, 4))
    if not len(boxes):
        return []
    examples = [f"{relative(each.path, split.root)}: {_text(each.boxes[0])}" for each in with_boxes]
    if split.kind != "YOLO" and (boxes <= 1).all():
        return of_kind("normalised", examples, len(boxes))
    sizes = np.concatenate([np.tile(each.size or (np.inf, np.inf), (len(each.boxes), 1)) for each in with_boxes])
    corners, others = boxes.copy(), boxes.copy()
    if split.form == "xywh":
        others[:, 2:] = boxes[:, 2:] - boxes[:, :2]  # the numbers as they stand in the list
    else:
        others[:, 2:] = boxes[:, 2:] + boxes[:, :2]
    fits = [float(_fits(each, sizes).mean()) for each in (corners, others)]
    if fits[0] < 0.5 and fits[1] > max(0.9, fits[0]):
        return of_kind("box-form", [f"as read {fits[0]:.0%} fit, the other way {fits[1]:.0%}", *examples], len(boxes))
    return []


def _fits(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    inside = (boxes[:, :2] >= -BEYOND_PX).all(1) & (boxes[:, 2:] <= sizes + BEYOND_PX).all(1)
    return inside & _has_extent(boxes)


def _beyond(boxes: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[int, str]]:
    """The boxes that are not inside of their picture, with the kind of fault."""
    limits = np.array([*size, *size], float)
    clipped = boxes.clip(0, limits)
    over = np.abs(clipped - boxes).max(1, initial=0)
    places = np.flatnonzero((over > BEYOND_PX) & _has_extent(boxes))
    is_far = areas(clipped[places]) < (1 - FAR_SHARE) * areas(boxes[places])
    yield from zip(places.tolist(), np.where(is_far, "far-beyond-image", "beyond-image").tolist(), strict=True)


def _duplicates(each: Listed) -> np.ndarray:
    """The objects that lie on an earlier one of their class."""
    same = (each.labels[:, None] == each.labels) & (overlap(each.boxes, each.boxes) > ALIKE)
    return np.flatnonzero(np.triu(same, 1).any(0))


def _crowds(split: Split) -> list[Finding]:
    if split.kind != "COCO":  # elsewhere it means that an object is difficult
        return []
    crowds = sum(int(each.crowd.sum()) for each in split.pictures)
    if crowds <= MOST_CROWDS * sum(len(each.crowd) for each in split.pictures):
        return []
    return of_kind(
        "many-crowds", [relative(each.path, split.root) for each in split.pictures if each.crowd.any()], crowds
    )


def _masks(split: Split) -> list[Finding]:
    if all(each.masks is None for each in split.pictures):
        return []
    without = [
        relative(each.path, split.root)
        for each in split.pictures
        if len(each.boxes) and (each.masks is None or None in each.masks)
    ]
    return of_kind("no-mask", without)


def _text(box: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in box)
