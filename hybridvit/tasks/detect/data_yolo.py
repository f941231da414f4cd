"""YOLO's text files: a line for each object, in shares of the picture, beside a yaml file with the names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hybridvit.data.decode import size_of, turned
from hybridvit.data.scan import is_image, relative, walk
from hybridvit.errors import DatasetError, ImageDecodeError
from hybridvit.tasks.detect.data_lists import UNKNOWN, Category, Drafted, Faults, Listed, Split
from hybridvit.tasks.detect.data_masks import area, of_polygons

_BOX_NUMBERS, _LEAST_NUMBERS = 5, 7  # of a row: class and box, class and three points
_ROUNDING = 1.001  # shares a little above 1 are roundings


def content_of(file: Path) -> dict[str, Any]:
    """The yaml, as data alone: nothing in it is run. Raises DatasetError where it is no such file."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DatasetError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        raise DatasetError(f"{file} has no 'names', so it is no data.yaml of YOLO. List the classes there.")
    return content


def categories_of(content: dict[str, Any]) -> tuple[Category, ...]:
    """The names, by their numbers."""
    names = content["names"]
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return tuple(sorted(Category(int(number), str(name)) for number, name in pairs))


def read_yolo(file: Path, root: Path, split: str, categories: Sequence[Category] | None = None) -> Split:
    """The pictures that a split of a data.yaml names. Raises DatasetError where they are not to be found."""
    content = content_of(file)
    own, faults = categories_of(content), Faults()
    known = own if categories is None else tuple(categories)
    for each in own:
        if each not in known:
            faults.add("other-categories", f"{file.name}: {each.id} ({each.name})")
    label_of = {each.id: label for label, each in enumerate(known)}
    pictures = [_listed(path, root, label_of, faults) for path in _pictures(file, content, root, split)]
    return Split(
        root=str(root),
        source=str(file),
        kind="YOLO",
        pictures=tuple(pictures),
        categories=known,
        findings=tuple(faults.findings()),
    )


def _pictures(file: Path, content: dict[str, Any], root: Path, split: str) -> Iterator[str]:
    base = _base(file, content)
    places = content.get(split)
    if not places:
        raise DatasetError(f"{file} has no '{split}'. Name the split with data.train and data.val.")
    for place in places if isinstance(places, list) else [places]:
        path = next((each for each in _readings(str(place), base, root) if each.exists()), None)
        if path is None:
            raise DatasetError(f"{file}: '{split}' is {place}, which is not there. Correct it, or 'path'.")
        if path.is_dir():
            yield from sorted(filter(is_image, walk(str(path))), key=os.fsencode)
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if name := line.strip():
                there = [each for each in _readings(name, path.parent, base) if each.exists()]
                yield str(there[0] if there else path.parent / name)


def _base(file: Path, content: dict[str, Any]) -> Path:
    path = Path(str(content.get("path") or "."))
    return next((each for each in (file.parent / path, file.parent / path.name) if each.is_dir()), file.parent)


def _readings(place: str, *bases: Path) -> list[Path]:
    """Where a path may lead: Roboflow's begin with ../, though the folder lies beside."""
    within = place.removeprefix("../")
    return [*(base / place for base in bases), *(base / within for base in bases)]


def labels_file(path: str) -> Path:
    """The text file of a picture: in labels/ instead of the last images/, or beside it."""
    folders, file = Path(path).parent.parts, Path(path).with_suffix(".txt")
    if "images" not in folders:
        return file
    last = len(folders) - 1 - folders[::-1].index("images")
    return Path(*folders[:last], "labels", *folders[last + 1 :], file.name)


def _listed(path: str, root: Path, label_of: dict[Any, int], faults: Faults) -> Listed:
    name = relative(path, str(root))
    try:
        size = turned(*size_of(path))
    except ImageDecodeError:
        return Drafted().listed(path, None)  # whoever decodes it will say what is wrong
    file, draft = labels_file(path), Drafted()
    if not file.is_file():
        faults.add("no-list", name)
        return draft.listed(path, size)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            _add(draft, line, size, label_of, faults, f"{relative(str(file), str(root))}, line {number}")
    return draft.listed(path, size)


def _add(
    draft: Drafted, line: str, size: tuple[int, int], label_of: dict[Any, int], faults: Faults, where: str
) -> None:
    """The object of one line."""
    try:
        number, *values = map(float, line.split())
    except ValueError:
        faults.add("bad-row", f"{where}: {line[:60]}")
        return
    is_box = len(values) + 1 == _BOX_NUMBERS
    if not is_box and (len(values) + 1 < _LEAST_NUMBERS or len(values) % 2):
        faults.add("short-polygon" if len(values) % 2 == 0 else "bad-row", f"{where}: {line[:60]}")
        return
    if max(values) > _ROUNDING:
        faults.add("absolute", f"{where}: {line[:60]}")
        return
    label = label_of.get(int(number), UNKNOWN)
    if label == UNKNOWN:
        faults.add("unknown-category", f"{where}: category {number:g}")
    width, height = size
    if is_box:
        x, y, across, down = values
        box = ((x - across / 2) * width, (y - down / 2) * height, (x + across / 2) * width, (y + down / 2) * height)
        draft.add(box, label)
        return
    across_px = [x * width for x in values[::2]]
    down_px = [y * height for y in values[1::2]]
    mask = of_polygons([[c for pair in zip(across_px, down_px, strict=True) for c in pair]], size)
    if not area(mask):
        faults.add("empty-mask", where)
        return
    box = (min(across_px), min(down_px), max(across_px), max(down_px))
    draft.add(box, label, area=area(mask), mask=mask)
