"""Which files a data set has, and of which classes, before any of them is opened."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hybridvit.data.check_report import Finding, finding
from hybridvit.data.listing import Labels, Listing
from hybridvit.data.scan import SPLITS, class_folders, ending, images_in, is_image, relative, subfolders, walk
from hybridvit.errors import DatasetError

WHOLE = ""
"""The name of the only split of a data set that has none."""


class Looked(NamedTuple):
    """What decoding told of a picture."""

    size: tuple[int, int] | None  # width, height of the upright picture; None: it cannot be decoded
    orientation: int  # EXIF, 1 to 8
    mode: str = ""  # of the file, before its picture became RGB: L, RGBA, CMYK, ...; empty if it cannot be decoded


Further = Callable[[Mapping[str, Looked], int], Iterable[Finding]]
"""What there is to say once all pictures are decoded: given these by their paths in the root of the data set, and how
many processes may work, of which 0 means this one (see `hybridvit.data.processes.in_processes`)."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The files of a data set. `others` and `unreadable` are known once `rows` have been read.

    A task whose data set is more than pictures with labels says what is wrong with it in `findings`, and in `further`
    what takes the decoded pictures or a long time.
    """

    root: str
    names: Sequence[str]  # of all classes
    splits: Mapping[str, Sequence[str]]  # the classes of each, by its name
    sets: Sequence[Labels]  # the sets of labels that images have, as indices into `names`
    rows: Iterable[tuple[int, int, bytes]]  # split and set by their numbers, and the path in `root`
    findings: Sequence[Finding] = ()
    others: Counter[str] = field(default_factory=Counter)  # files that are no images, by ending
    unreadable: list[str] = field(default_factory=list)
    in_folders: bool = False  # of their classes
    of_pictures: bool = True  # whether a label is of a whole picture, so that one class is too few to learn from
    to_train: bool = True  # or to evaluate on alone
    further: Further | None = None


def contents_of_folder(root: str) -> Contents:
    """Those of a folder of class folders, or of splits such as train/ and val/.

    Raises `DatasetError` where there are neither classes nor splits.
    """
    splits, findings = _folders(root)
    names = sorted({name for classes in splits.values() for name in classes}, key=os.fsencode)
    others, unreadable = Counter[str](), list[str]()
    return Contents(
        root=root,
        names=names,
        splits=splits,
        sets=[(label,) for label in range(len(names))],
        rows=_files(root, splits, names, others, unreadable),
        findings=findings,
        others=others,
        unreadable=unreadable,
        in_folders=True,
    )


def contents_of_listings(root: str, listings: Mapping[str, Listing[Any]]) -> Contents:
    """Those of listings by the name of their split, the one to train on first; its classes may be without images."""
    splits = {name: tuple(listing.class_names) for name, listing in listings.items()}
    names = list(dict.fromkeys(name for classes in splits.values() for name in classes))
    index, sets, rows = {name: label for label, name in enumerate(names)}, dict[Labels, int](), []
    for number, (split, listing) in enumerate(listings.items()):
        present = set[str]()
        for path, labels in zip(listing.paths, listing.labels, strict=True):
            own = [listing.class_names[label] for label in ((labels,) if isinstance(labels, int) else labels)]
            labelled = tuple(sorted(index[name] for name in own))
            rows.append((number, sets.setdefault(labelled, len(sets)), os.fsencode(relative(path, root))))
            present.update(own)
        if number:
            splits[split] = tuple(name for name in splits[split] if name in present)
    return Contents(root=root, names=names, splits=splits, sets=list(sets), rows=rows)


def _folders(root: str) -> tuple[dict[str, tuple[str, ...]], list[Finding]]:
    """The classes in each split, by its name, and what the folders give reason to say before any image is opened.

    Raises `DatasetError` where there are neither classes nor splits.
    """
    present = subfolders(root)
    splits = [name for name in present if name.lower() in SPLITS]
    only_splits = len(splits) == len(present) or len(splits) > 1
    if not only_splits or not any(subfolders(os.path.join(root, split)) for split in splits):
        return {WHOLE: tuple(class_folders(root))}, _outside(root, (WHOLE,))
    beside = [name for name in present if name not in splits]
    findings = [
        *_outside(root, splits),
        *finding("warning", "beside-splits", "Folders beside the splits, which are not checked", beside),
    ]
    splits.sort(key=lambda name: (not name.lower().startswith("train"), os.fsencode(name)))
    found = {split: tuple(subfolders(os.path.join(root, split))) for split in splits}
    for split in (split for split in splits if not found[split]):
        findings += finding("warning", "no-classes", "Splits without class folders, which are not checked", [split])
    return {split: classes for split, classes in found.items() if classes}, findings


def _outside(root: str, splits: Sequence[str]) -> list[Finding]:
    """Images beside the class folders, where no data set looks."""
    found = [relative(path, root) for split in splits for path in images_in(os.path.join(root, split))]
    what = "Images outside of class folders, which have no label and are not checked"
    return finding("warning", "outside-classes", what, found)


def _files(
    root: str, splits: Mapping[str, Sequence[str]], names: Sequence[str], others: Counter[str], unreadable: list[str]
) -> Iterator[tuple[int, int, bytes]]:
    """The image files; the rest is counted by ending, and noted is what cannot be read."""
    label = {name: number for number, name in enumerate(names)}

    def refused(folder: str, error: DatasetError) -> None:
        unreadable.append(str(error))

    for number, (split, classes) in enumerate(splits.items()):
        for name in classes:
            for path in walk(os.path.join(root, split, name), on_error=refused):
                if is_image(path):
                    yield number, label[name], os.fsencode(relative(path, root))
                else:
                    others[ending(path) or "no ending"] += 1
