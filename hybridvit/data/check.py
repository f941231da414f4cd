"""Look at every file of an image data set before a training does; `check_folder` reports what it found."""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from hybridvit.data.check_findings import describe_findings
from hybridvit.data.check_report import CheckReport, Finding, finding
from hybridvit.data.inspect import Inspection, inspect_file, lost_file
from hybridvit.data.processes import in_processes
from hybridvit.data.scan import (
    SPLITS,
    class_folders,
    ending,
    fold_name,
    images_in,
    is_image,
    relative,
    subfolders,
    walk,
)
from hybridvit.errors import DatasetError

WHOLE = ""
"""The name of the only split of a folder that has class folders and no splits."""
_BATCH = 10_000  # rows of the table read or written at once
_TABLE = """
create table files (
    number integer primary key, split integer, class integer, path blob, bytes integer, digest blob, kind text,
    mode text, bits integer, orientation integer, width integer, height integer, highest real, white real, error text
)"""


def check_folder(
    root: str,
    *,
    workers: int,
    on_progress: Callable[[int, int, int], None] = lambda done, total, bad: None,
    inspect: Callable[[tuple[int, str]], Inspection] = inspect_file,
) -> CheckReport:
    """Decode every image below `root`, a folder of class folders or of splits such as train/ and val/.

    Bad files are counted, not raised. What is known of each file lies in a temporary table on disk, so memory does not
    grow with the number of files. `on_progress` is given the files done, all files, and the bad ones among those done.

    Raises `DatasetError` where there is no data set to check: no such folder, or neither class folders nor splits.
    """
    began = time.monotonic()
    splits, findings = _folders(root)
    names = sorted({name for classes in splits.values() for name in classes}, key=os.fsencode)
    table = sqlite3.connect("")  # on disk, without a name, gone when closed
    try:
        table.text_factory = os.fsdecode  # names that are not UTF-8 included
        table.create_function("folded", 1, _folded, deterministic=True)
        table.execute(_TABLE)
        others: Counter[str] = Counter()
        unreadable: list[str] = []
        _list_files(table, root, splits, names, others, unreadable)
        total = table.execute("select count(*) from files").fetchone()[0]
        bad = 0
        files = ((number, os.path.join(root, path)) for number, path in _paths(table, total))
        for done, found in enumerate(in_processes(inspect, files, workers=workers, lost=lost_file), start=1):
            bad += bool(found.error)
            _store(table, found)
            if done % _BATCH == 0:
                table.commit()
            on_progress(done, total, bad)
        findings += describe_findings(table, root, splits=splits, names=names, others=others, unreadable=unreadable)
        return CheckReport.of(table, root, splits, names, findings, seconds=time.monotonic() - began)
    finally:
        table.close()


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


def _list_files(
    table: sqlite3.Connection,
    root: str,
    splits: dict[str, tuple[str, ...]],
    names: list[str],
    others: Counter[str],
    unreadable: list[str],
) -> None:
    """Write the image files to the table; count the rest by ending, and note what cannot be read."""
    label = {name: number for number, name in enumerate(names)}

    def refused(folder: str, error: DatasetError) -> None:
        unreadable.append(str(error))

    def rows() -> Iterator[tuple[int, int, bytes]]:
        for number, (split, classes) in enumerate(splits.items()):
            for name in classes:
                for path in walk(os.path.join(root, split, name), on_error=refused):
                    if is_image(path):
                        yield number, label[name], os.fsencode(relative(path, root))
                    else:
                        others[ending(path) or "no ending"] += 1

    table.executemany("insert into files (split, class, path) values (?, ?, ?)", rows())


def _paths(table: sqlite3.Connection, total: int) -> Iterator[tuple[int, str]]:
    """Number and path of every file; read in parts, for the table is written to meanwhile."""
    for first in range(1, total + 1, _BATCH):
        part = table.execute("select number, path from files where number between ? and ?", (first, first + _BATCH - 1))
        for number, path in part.fetchall():
            yield number, os.fsdecode(path)


def _store(table: sqlite3.Connection, found: Inspection) -> None:
    facts = found.facts
    described: tuple[object, ...] = (None,) * 8
    if facts is not None:
        highest = None if facts.range is None else facts.range[1]
        described = (facts.kind, facts.mode, facts.bits, facts.orientation, *facts.size, highest, facts.white)
    error = os.fsencode(found.error).decode(errors="replace") or None
    table.execute(
        "update files set bytes = ?, digest = ?, kind = ?, mode = ?, bits = ?, orientation = ?, width = ?, height = ?, "
        "highest = ?, white = ?, error = ? where number = ?",
        (found.size_bytes, found.digest or None, *described, error, found.number),
    )


def _folded(path: bytes) -> bytes:
    folder, name = os.path.split(os.fsdecode(path))
    return os.fsencode(os.path.join(folder, fold_name(name)))
