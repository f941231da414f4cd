"""How a data set is laid out, found by looking at its folders and files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridvit.data.scan import SPLITS, subfolders
from hybridvit.errors import DatasetError, some
from hybridvit.tasks.detect.config import DetectData
from hybridvit.tasks.detect.data_coco import is_coco, read_coco
from hybridvit.tasks.detect.data_csv import has_boxes, read_csv
from hybridvit.tasks.detect.data_lists import Category, Split
from hybridvit.tasks.detect.data_voc import files_in, is_labelme, read_labelme, read_voc, split_files
from hybridvit.tasks.detect.data_yolo import content_of, read_yolo

Read = Callable[[Sequence[Category] | None], Split]
"""Gives a split, with the categories given, or with its own."""
ALIKE = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}
"""What the splits are called where their names are those of the recipe's defaults."""
OTHER_LISTS = {"captions", "keypoints", "panoptic", "stuff", "info"}  # words in the names of COCO's
LAYOUTS = (
    "COCO (annotations/instances_train*.json beside train*/, or train/_annotations.coco.json), YOLO (data.yaml), "
    "Pascal VOC (Annotations/*.xml, JPEGImages/), CSV (train.csv with file, x1, y1, x2, y2, label) and LabelMe "
    "(train/*.json)"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The splits of a data set, by the names that they have there."""

    root: Path
    kind: str
    splits: Mapping[str, Read]

    def named(self, name: str) -> Read | None:
        """The split of that name, or one that means the same; a list or folder in the root goes by its path."""
        alike = ALIKE.get(name, (name,))
        return next((self.splits[each] for each in alike if each in self.splits), None)


def find_layout(root: str, data: DetectData | None = None) -> Layout | None:
    """The layout of a data set; None where none is known. `data` may name its kind, and lists as splits."""
    place = Path(root).expanduser()
    wanted = "auto" if data is None else data.kind
    named = () if data is None else (data.train, data.val)
    for kind, look in _LOOKS.items():
        if wanted in ("auto", kind) and place.exists():
            splits = look(place, named)
            if splits:
                return Layout(root=place if place.is_dir() else place.parent, kind=kind, splits=splits)
    return None


def layout_of(root: str, data: DetectData) -> Layout:
    """The same. Raises DatasetError where none is known."""
    found = find_layout(root, data)
    if found is None:
        place = Path(root).expanduser()
        there = sorted(each.name for each in place.iterdir()) if place.is_dir() else []
        what = LAYOUTS if data.kind == "auto" else f"{data.kind} (data.kind)"
        raise DatasetError(
            f"{root} is not laid out as any data set of boxes that is known here: {what}. It holds: "
            f"{some(there, quoted=True) or 'nothing'}. globox, datumaro and supervision convert other formats to COCO."
        )
    return found


def _coco(root: Path, named: Sequence[str]) -> dict[str, Read]:
    files: dict[str, Path] = {}
    if root.suffix.lower() == ".json":
        if is_coco(root):
            files[root.stem] = root
    elif root.is_dir():
        for name in (each for each in named if each.endswith(".json") and (root / each).is_file()):
            files[name] = root / name
        for folder in subfolders(str(root)):
            for file in files_in(root / folder, ".json", _lists_boxes):
                if folder.lower() in SPLITS:  # Roboflow's, beside the pictures
                    files.setdefault(folder.lower(), file)
                elif folder in ("annotations", "Annotations", "labels"):
                    files.setdefault(_split_in(file.stem), file)
        for file in files_in(root, ".json", _lists_boxes):
            files.setdefault(_split_in(file.stem), file)
    base = root if root.is_dir() else root.parent
    return {name: _reads(read_coco, file, base) for name, file in files.items()}


def _lists_boxes(file: Path) -> bool:
    """Whether a json file is one of boxes, and none of COCO's other lists.

    A name that says so is enough: what is wrong inside is told when it is read.
    """
    named = file.stem.startswith("instances_") or file.stem.endswith(".coco")
    return not _words(file.stem) & OTHER_LISTS and (named or is_coco(file))


def _words(stem: str) -> set[str]:
    return {word.rstrip("0123456789") for word in stem.lower().replace("-", "_").split("_")}


def _split_in(stem: str) -> str:
    """The split that the name of a list means: instances_train2017, train, annotations_val; else the name itself."""
    found = sorted(_words(stem) & SPLITS)
    return found[0] if found else stem.removeprefix("instances_")


def _yolo(root: Path, named: Sequence[str]) -> dict[str, Read]:
    files = [root] if root.suffix.lower() in (".yaml", ".yml") else []
    if root.is_dir():
        files = [*files_in(root, ".yaml"), *files_in(root, ".yml")]
    for file in sorted(files, key=lambda each: each.stem not in ("data", "dataset")):
        try:
            content = content_of(file)
        except DatasetError:
            if _has_labels(root):
                raise
            continue
        splits = [name for name in ("train", "val", "valid", "test", *named) if content.get(name)]
        return {name: _reads(read_yolo, file, file.parent, name) for name in splits}
    return {}


def _has_labels(root: Path) -> bool:
    """Whether there are folders of YOLO's labels, so that its yaml is meant to be one."""
    return any((root / part / "labels").is_dir() for part in ("", *SPLITS))


def _voc(root: Path, named: Sequence[str]) -> dict[str, Read]:
    if not root.is_dir():
        return {}
    xmls, lists, images = root / "Annotations", root / "ImageSets" / "Main", root / "JPEGImages"
    if xmls.is_dir() and (files := files_in(xmls, ".xml")):
        folder = images if images.is_dir() else root / "images"
        if not lists.is_dir():
            return {"all": _reads_files(read_voc, files, folder, root)}
        names = [file.stem for file in files_in(lists, ".txt") if "_" not in file.stem]  # cat_train: of one class
        return {name: _reads_lists(lists, name, xmls, folder, root) for name in names}
    found = {}
    for folder_name in subfolders(str(root)):
        if folder_name.lower() in SPLITS and (files := files_in(root / folder_name, ".xml")):
            found[folder_name.lower()] = _reads_files(read_voc, files, root / folder_name, root)
    return found


def _csv(root: Path, named: Sequence[str]) -> dict[str, Read]:
    if has_boxes(root):
        return {root.stem: _reads(read_csv, root, root.parent)}
    if not root.is_dir():
        return {}
    tables = {file.stem: file for file in files_in(root, ".csv", has_boxes)}
    tables |= {name: root / name for name in named if has_boxes(root / name)}
    return {name: _reads(read_csv, file, root) for name, file in tables.items()}


def _labelme(root: Path, named: Sequence[str]) -> dict[str, Read]:
    if not root.is_dir():
        return {}
    found: dict[str, Read] = {}
    for name in subfolders(str(root)):
        if (name.lower() in SPLITS or name in named) and (files := _of_labelme(root / name)):
            found[name.lower()] = _reads_files(read_labelme, files, root)
    if not found and (files := _of_labelme(root)):
        found["all"] = _reads_files(read_labelme, files, root)
    return found


def _of_labelme(folder: Path) -> list[Path]:
    files = files_in(folder, ".json")
    return files if files and is_labelme(files[0]) else []


_LOOKS: dict[str, Callable[[Path, Sequence[str]], dict[str, Read]]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
    "csv": _csv,
    "labelme": _labelme,
}


def _reads(read: Callable[..., Split], *arguments: object) -> Read:
    return lambda categories: read(*arguments, categories=categories)


def _reads_files(read: Callable[..., Split], files: Sequence[Path], *arguments: object) -> Read:
    return lambda categories: read(files, *arguments, categories=categories)


def _reads_lists(lists: Path, name: str, xmls: Path, folder: Path, root: Path) -> Read:
    return lambda categories: read_voc(split_files(lists, name, xmls), folder, root, categories=categories)
