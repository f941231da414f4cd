"""COCO's json: pictures, categories, and objects with boxes and masks."""

import json
import mmap
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridvit.errors import DatasetError
from hybridvit.tasks.detect.data_lists import UNKNOWN, Category, Drafted, Faults, Listed, Split
from hybridvit.tasks.detect.data_masks import RLE, area, box_of, of_counts, of_polygons

_LEAST_NUMBERS = 6  # of a polygon: three points


def read_coco(file: Path, root: Path, categories: Sequence[Category] | None = None) -> Split:
    """The split that a json file describes, with the categories given, or those that it lists, sorted by id.

    Raises DatasetError for a file that is no such list.
    """
    content = content_of(file)
    faults, remarks = Faults(), list[str]()
    own = _categories(content, file, faults, remarks)
    known = own if categories is None else tuple(categories)
    for each in own:
        if each not in known and _has_objects(content, each):
            faults.add("other-categories", f"{file.name}: {each.id} ({each.name})")
    label_of = {each.id: label for label, each in enumerate(known)}
    drafted = _objects(content, label_of, faults, file.name)
    images = list(content["images"])
    _count_ids(content, images, faults, file.name)
    find = _finder(file, root, [str(image["file_name"]) for image in images])
    pictures = list[Listed]()
    for image in images:
        draft = drafted.get(image["id"], Drafted())
        pictures.append(draft.listed(find(str(image["file_name"])), _size_of(image)))
    return Split(
        root=str(root),
        source=str(file),
        kind="COCO",
        form="xywh",
        pictures=tuple(pictures),
        categories=known,
        findings=tuple(faults.findings()),
        remarks=tuple(remarks),
    )


def is_coco(file: Path) -> bool:
    """Whether a json file has the keys of such a list, wherever in it they stand; it is not parsed for that."""
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
            has_images, *has_others = (
                text.find(b'"%s"' % key) >= 0 for key in (b"images", b"annotations", b"categories")
            )
            return has_images and any(has_others)
    except (OSError, ValueError):  # an empty file has nothing to map
        return False


def content_of(file: Path) -> dict[str, Any]:
    """The json. Raises DatasetError where it is none, or has no pictures or categories."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read as JSON: {error}. Export it again.") from error
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DatasetError(
                f"{file} has no list '{key}' of objects, so it is no COCO annotation file. Export it again as COCO."
            )
    for key, needed in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
        for row in content[key]:
            if any(name not in row for name in needed):
                raise DatasetError(f"{file}: an entry of '{key}' has no {' or '.join(needed)}: {str(row)[:80]}.")
    return content


def _categories(content: Mapping[str, Any], file: Path, faults: Faults, remarks: list[str]) -> tuple[Category, ...]:
    rows = content["categories"]
    counts = Counter(row["id"] for row in rows)
    for number, count in counts.items():
        if count > 1:
            faults.add("duplicate-category", f"{file.name}: {number}")
    unique = {row["id"]: Category(row["id"], str(row["name"])) for row in rows}
    known = sorted(unique.values(), key=lambda each: (isinstance(each.id, str), each.id))
    if known and known[0].id == 0 and not _has_objects(content, known[0]) and _is_above(known[0], rows):
        remarks.append(
            f"Category 0 ('{known[0].name}') of {file} has no objects and stands above the others, as Roboflow writes "
            "it: it is left out."
        )
        del known[0]
    return tuple(known)


def _has_objects(content: Mapping[str, Any], category: Category) -> bool:
    return any(each.get("category_id") == category.id for each in content["annotations"])


def _is_above(category: Category, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another category says that it belongs to this one."""
    return any(row.get("supercategory") == category.name for row in rows if row["id"] != category.id)


def _count_ids(content: Mapping[str, Any], images: Sequence[Mapping[str, Any]], faults: Faults, name: str) -> None:
    for number, count in Counter(image["id"] for image in images).items():
        if count > 1:
            faults.add("duplicate-image-id", f"{name}: {number}")
    for file, count in Counter(image["file_name"] for image in images).items():
        if count > 1:
            faults.add("duplicate-image", f"{name}: {file}")
    numbers = Counter(each["id"] for each in content["annotations"] if "id" in each)
    for number, count in numbers.items():
        if count > 1:
            faults.add("duplicate-annotation-id", f"{name}: {number}")


def _objects(content: Mapping[str, Any], label_of: Mapping[Any, int], faults: Faults, name: str) -> dict[Any, Drafted]:
    """The objects by the id of their picture."""
    images = {image["id"]: image for image in content["images"]}
    drafted: dict[Any, Drafted] = {}
    for each in content["annotations"]:
        image = images.get(each.get("image_id"))
        where = f"{each.get('image_id') if image is None else image['file_name']}, annotation {each.get('id')}"
        if image is None:
            faults.add("no-image", f"{name}: picture {where}")
            continue
        label = label_of.get(each.get("category_id"), UNKNOWN)
        if label == UNKNOWN:
            faults.add("unknown-category", f"{where}: category {each.get('category_id')!r}")
        mask, drop = _mask(each.get("segmentation"), _size_of(image), where, faults)
        if drop:
            continue
        box = _box(each.get("bbox"), mask, where, faults)
        if box is not None:
            stated = each.get("area")
            size = float(stated) if isinstance(stated, int | float) and stated > 0 else None
            crowd = bool(each.get("iscrowd", 0))
            size = area(mask) if size is None and mask is not None else size
            drafted.setdefault(image["id"], Drafted()).add(box, label, crowd=crowd, area=size, mask=mask)
    return drafted


def _box(given: Any, mask: RLE | None, where: str, faults: Faults) -> tuple[float, ...] | None:
    """As corners; that of the mask where the list has none."""
    try:
        left, top, width, height = map(float, given)
    except (TypeError, ValueError):
        if mask is not None and not given:
            return box_of(mask)
        faults.add("bad-row", f"{where}: bbox {str(given)[:60]}")
        return None
    return left, top, left + width, top + height


def _mask(given: Any, size: tuple[int, int] | None, where: str, faults: Faults) -> tuple[RLE | None, bool]:
    """The mask, if there is one, and whether the object is to be left out for it."""
    if not given or size is None:
        return None, False
    try:
        if isinstance(given, dict):
            if tuple(given["size"]) != (size[1], size[0]):
                faults.add("rle-size", f"{where}: {given['size'][1]}x{given['size'][0]} of {size[0]}x{size[1]}")
                return None, False
            mask = _run_lengths(given)
        else:
            polygons = [polygon for polygon in given if len(polygon) >= _LEAST_NUMBERS]
            if len(polygons) < len(given):
                faults.add("short-polygon", f"{where}: {min(map(len, given)) // 2} points")
            if not polygons:
                return None, False
            mask = of_polygons(polygons, size)
        if not area(mask):
            faults.add("empty-mask", where)
            return None, True
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError) as error:
        faults.add("bad-mask", f"{where}: {error}")
        return None, False
    return mask, False


def _run_lengths(given: Mapping[str, Any]) -> RLE:
    size, counts = [int(side) for side in given["size"]], given["counts"]
    if isinstance(counts, list):
        if sum(counts) != size[0] * size[1] or min(counts) < 0:
            raise ValueError(f"its runs add up to {sum(counts)}, not to {size[0] * size[1]}")
        return of_counts(counts, size)
    mask: RLE = {"size": size, "counts": counts.encode() if isinstance(counts, str) else bytes(counts)}
    if sum(_lengths(mask["counts"])) != size[0] * size[1]:  # else reading it would write beyond the picture
        raise ValueError("its runs do not add up to the picture")
    return mask


def _lengths(counts: bytes) -> list[int]:
    """The runs of compressed counts: 5 bits a character, the sixth for more to come; from the third on differences."""
    lengths, value, shift = list[int](), 0, 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{chr(character)!r} is no character of run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift or any(length < 0 for length in lengths):
        raise ValueError("its runs are cut off or negative")
    return lengths


def _size_of(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (int(width), int(height)) if width and height else None


def _finder(file: Path, root: Path, names: Sequence[str]) -> Any:
    """Where a picture lies that the list calls by a name: in the one of the usual folders that has most of some."""
    stem = file.stem.removeprefix("instances_")
    above = file.parent.parent
    usual = [above / stem, above / "images" / stem, file.parent, root, above / "images", file.parent / "images"]
    folders = [*usual, file.parent / stem, root / "images", root / stem, above]
    tried = names[:: max(1, len(names) // 20)]
    folder = max(folders, key=lambda place: sum((place / name).is_file() for name in tried))
    return lambda name: name if os.path.isabs(name) else os.path.join(folder, name)
