"""Which classes a set of masks has: names, the value that stands for each, and its colour, from files beside them."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridvit.errors import DatasetError
from hybridvit.tasks.segment.config import SegmentData
from hybridvit.tasks.segment.masks import IGNORE, MOST_CLASSES, MOST_VALUES, Colour, Reading

_VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
OF_LAYOUT: Mapping[str, Sequence[str]] = {"Pascal VOC": _VOC, "Cityscapes": _CITYSCAPES}
"""The names that masks of these layouts have where all these classes, and no others, are in them."""
_JSON = ("palette.json", "classes.json")
_TEXT = "classes.txt"
ADE20K = "objectInfo150.txt"


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes that a file names. `values` are those of the masks, before any reduction; empty: in order."""

    source: str
    names: tuple[str, ...]
    values: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()


def named_classes(folders: Iterable[str]) -> Classes | None:
    """The classes that a file in the first of the folders that has one names; None without any.

    Raises DatasetError for a file that names none.
    """
    for folder in folders:
        for name in (*_JSON, _TEXT, ADE20K):
            path = Path(folder, name)
            if path.is_file():
                return _read(path)
    return None


def _read(path: Path) -> Classes:
    try:
        text = path.read_text(encoding="utf-8")
        if path.name in _JSON:
            return _of_json(path, json.loads(text))
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f'{path} names no classes ({error}). Write {{"name": [r, g, b], ...}}, or a list of {{"name": ..., '
            '"color": [r, g, b], "id": number}}.'
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if path.name == ADE20K:
        lines = [line.split("\t")[-1].strip() for line in lines if line.split("\t")[0].strip().isdecimal()]
    if not lines:
        raise DatasetError(f"{path} names no classes. Write one a line, in the order of their values.")
    return Classes(source=str(path), names=tuple(lines))


def _of_json(path: Path, content: Any) -> Classes:
    if isinstance(content, Mapping):
        rows = [{"name": name, "color": colour} for name, colour in content.items()]
    else:
        rows = list(content)
    names = tuple(str(row["name"]) for row in rows)
    values = tuple(int(row.get("id", number)) for number, row in enumerate(rows))
    colours = tuple(_colour(row["color"]) for row in rows if "color" in row)
    if not rows or len(colours) not in (0, len(rows)):
        raise ValueError("some have no color" if rows else "it is empty")
    if not all(0 <= value < MOST_VALUES for value in values):
        raise ValueError(f"an id is not from 0 to {MOST_VALUES - 1}")
    for what, found in (("name", names), ("id", values), ("color", colours)):
        if len(set(found)) < len(found):
            raise ValueError(f"two have the same {what}")
    return Classes(source=str(path), names=names, values=values, colours=colours)


def _colour(given: Any) -> Colour:
    red, green, blue = (int(each) for each in given)
    if not all(0 <= each <= 255 for each in (red, green, blue)):
        raise ValueError(f"{given} is no colour")
    return red, green, blue


@dataclass(frozen=True, kw_only=True)
class Map:
    """The classes of a model, and how masks are read for it."""

    names: tuple[str, ...]
    reading: Reading
    palette: tuple[Colour, ...] = ()  # of the classes; empty: unknown


def raw_reading(classes: Classes | None) -> Reading:
    """What is needed to read values alone, before it is known what they stand for."""
    if classes is None or not classes.colours:
        return Reading(values=())
    values = classes.values or range(len(classes.names))
    return Reading(values=(), colours=tuple(zip(classes.colours, values, strict=True)))


def class_map(classes: Classes | None, data: SegmentData, seen: Sequence[int], kind: str) -> Map:
    """The classes and the reading of masks; where no file names them, of all values up to the highest that is `seen`.

    Raises DatasetError for more classes than a mask of bytes can tell apart.
    """
    colours = raw_reading(classes).colours
    if data.binary == "foreground":
        both = classes.names if classes and len(classes.names) == 2 else ("background", "foreground")
        return Map(names=both, reading=Reading(values=(0, 255), ignored=(), colours=colours))
    ignored = tuple(dict.fromkeys((data.ignore_label, *([0] if data.reduce_zero_label else []))))
    first = int(data.reduce_zero_label)
    if classes is None:
        highest = max((value for value in seen if value not in ignored), default=first)
        names = [f"class_{number}" for number in range(highest + 1 - first)]
        known = OF_LAYOUT.get(kind, ())
        if len(known) == len(names) and set(range(len(names))) <= set(seen):
            names = list(known)
        values: Sequence[int] = range(first, first + len(names))
    else:
        values = classes.values or range(first, first + len(classes.names))
        kept = [number for number, value in enumerate(values) if value not in ignored]
        names = [classes.names[number] for number in kept]
        values = [values[number] for number in kept]
    if len(names) > MOST_CLASSES:
        raise DatasetError(
            f"The masks have {len(names):,} classes, but at most {MOST_CLASSES} can be learnt: label {IGNORE} stands "
            "for pixels of none. Join classes, or name the value that is to be ignored: --data.ignore_label."
        )
    palette = tuple(colour for number, colour in enumerate(classes.colours) if number in kept) if classes else ()
    return Map(
        names=tuple(names), reading=Reading(values=tuple(values), ignored=ignored, colours=colours), palette=palette
    )


def folders_of_classes(root: str, masks: Iterable[str]) -> list[str]:
    """Where a file of classes may lie: in the data set's folder, or beside its masks."""
    return list(dict.fromkeys((root, *(os.path.dirname(path) for path in list(masks)[:1]))))
