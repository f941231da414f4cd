"""Pascal VOC's xml, and LabelMe's json: a file for each picture."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from hybridvit.data.scan import is_image, relative, walk
from hybridvit.data.table import rank
from hybridvit.errors import DatasetError
from hybridvit.tasks.detect.data_lists import UNKNOWN, Category, Drafted, Faults, Listed, Split
from hybridvit.tasks.detect.data_masks import area, of_polygons

Named = list[tuple[Drafted, list[str], str, tuple[int, int] | None]]
"""The objects of each picture, the names of their classes, its path, and its width and height."""


def read_voc(files: Sequence[Path], folder: Path, root: Path, categories: Sequence[Category] | None = None) -> Split:
    """The pictures of xml files, which lie in `folder` or beside them. Objects marked as difficult are not to be found.

    Raises DatasetError without any file.
    """
    faults = Faults()
    drafted = [each for file in files if (each := _voc(file, folder, faults)) is not None]
    return named(drafted, root, folder, "Pascal VOC", faults, categories)


def read_labelme(files: Sequence[Path], root: Path, categories: Sequence[Category] | None = None) -> Split:
    """The pictures of LabelMe's json files, whose shapes are polygons, rectangles and circles."""
    faults = Faults()
    drafted = [each for file in files if (each := _labelme(file, faults)) is not None]
    listed = {os.path.normpath(path) for *_, path, _ in drafted}
    for folder in dict.fromkeys(file.parent for file in files):
        for path in walk(str(folder)):
            if is_image(path) and os.path.normpath(path) not in listed:
                faults.add("no-list", relative(path, str(root)))
                drafted.append((Drafted(), [], path, None))
    return named(drafted, root, root, "LabelMe", faults, categories)


def named(
    drafted: Named, root: Path, source: Path, kind: str, faults: Faults, categories: Sequence[Category] | None
) -> Split:
    """A split of pictures whose classes are names: those given, or all that occur, sorted."""
    found = sorted({name for _, names, *_ in drafted for name in names}, key=rank)
    known = tuple(Category(number, name) for number, name in enumerate(found, start=1))
    known = known if categories is None else tuple(categories)
    label_of = {each.name: label for label, each in enumerate(known)}
    pictures = list[Listed]()
    for draft, names, path, size in drafted:
        draft.labels = [label_of.get(name, UNKNOWN) for name in names]
        pictures.append(draft.listed(path, size))
        for name in names:
            if name not in label_of:
                faults.add("unknown-category", f"{relative(path, str(root))}: {name}")
    return Split(
        root=str(root),
        source=str(source),
        kind=kind,
        pictures=tuple(pictures),
        categories=known,
        findings=tuple(faults.findings()),
    )


def _voc(file: Path, folder: Path, faults: Faults) -> tuple[Drafted, list[str], str, tuple[int, int] | None] | None:
    try:
        tree = ElementTree.parse(file).getroot()
        size = int(tree.findtext("size/width", "0")), int(tree.findtext("size/height", "0"))
        draft, names = Drafted(), list[str]()
        for each in tree.iterfind("object"):
            left, top, right, bottom = (float(each.findtext(f"bndbox/{side}", "")) for side in _SIDES)
            # the first pixel is 1, and the last one belongs to the box
            draft.add((left - 1, top - 1, right, bottom), 0, crowd=each.findtext("difficult", "0").strip() == "1")
            names.append(each.findtext("name", "").strip())
    except (ElementTree.ParseError, ValueError, OSError) as error:
        faults.add("bad-row", f"{file.name}: {error}")
        return None
    name = (tree.findtext("filename") or "").strip()
    candidates = [folder / name, file.parent / name] if name else []
    beside = [place / f"{file.stem}{ending}" for place in (folder, file.parent) for ending in (".jpg", ".png", ".jpeg")]
    path = next((each for each in (*candidates, *beside) if each.is_file()), (*candidates, *beside)[0])
    return draft, names, str(path), size if all(size) else None


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _labelme(file: Path, faults: Faults) -> tuple[Drafted, list[str], str, tuple[int, int] | None] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        size = int(content["imageWidth"]), int(content["imageHeight"])
        draft, names = Drafted(), list[str]()
        for shape in content["shapes"]:
            points = _outline(shape)
            if points is None:
                faults.add("short-polygon", f"{file.name}: {shape.get('label')} ({shape.get('shape_type')})")
                continue
            mask = of_polygons([[number for point in points for number in point]], size)
            if not area(mask):
                faults.add("empty-mask", f"{file.name}: {shape['label']}")
                continue
            across, down = zip(*points, strict=True)
            is_box = shape.get("shape_type") == "rectangle"
            box = (min(across), min(down), max(across), max(down))
            draft.add(box, 0, area=None if is_box else area(mask), mask=None if is_box else mask)
            names.append(str(shape["label"]))
        path = file.parent / str(content["imagePath"]).replace("\\", "/")
    except (ValueError, TypeError, KeyError, OSError) as error:
        faults.add("bad-row", f"{file.name}: {type(error).__name__} {error}")
        return None
    return draft, names, str(path), size


def _outline(shape: dict[str, object]) -> list[tuple[float, float]] | None:
    """The corners of a shape; None for points, lines and what has too few corners."""
    points = [(float(x), float(y)) for x, y in shape["points"]]  # type: ignore[attr-defined]
    kind = shape.get("shape_type", "polygon")
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    if kind == "circle" and len(points) == 2:
        import math

        (x, y), edge = points
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * corner / 64 for corner in range(64)]
        return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    return points if kind == "polygon" and len(points) >= 3 else None


def files_in(folder: Path, ending: str, looks_right: Callable[[Path], bool] = lambda file: True) -> list[Path]:
    """The files with an ending in a folder itself, sorted."""
    found = [file for file in folder.iterdir() if file.suffix.lower() == ending and file.is_file()]
    return sorted((file for file in found if looks_right(file)), key=os.fsencode)


def is_labelme(file: Path) -> bool:
    """Whether a json file is one of LabelMe's."""
    try:
        with open(file, encoding="utf-8") as opened:
            text = opened.read(20_000_000)
    except (OSError, ValueError):
        return False
    return '"shapes"' in text and '"imagePath"' in text


def split_files(folder: Path, name: str, xmls: Path) -> list[Path]:
    """The xml files that a list in ImageSets/Main names. Raises DatasetError where there is none."""
    file = folder / f"{name}.txt"
    if not file.is_file():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.txt"))[:8]) or "none"
        raise DatasetError(f"{folder} has no list '{name}.txt'; its lists are: {there}. Name one with data.train.")
    stems = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [xmls / f"{stem}.xml" for stem in stems]
