"""Look at every file of an image data set before a training does; `check_images` reports what it found."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator

from hybridvit.data.check_contents import Contents, Looked
from hybridvit.data.check_findings import describe_findings
from hybridvit.data.check_report import CheckReport
from hybridvit.data.inspect import Inspection, inspect_file, lost_file
from hybridvit.data.processes import in_processes
from hybridvit.data.scan import fold_name

_BATCH = 10_000  # rows of the table read or written at once
_TABLE = """
create table files (
    number integer primary key, split integer, labels integer, path blob, bytes integer, digest blob, kind text,
    mode text, bits integer, orientation integer, width integer, height integer, highest real, white real, error text
)"""


def check_images(
    contents: Contents,
    *,
    workers: int,
    on_progress: Callable[[int, int, int], None] = lambda done, total, bad: None,
    inspect: Callable[[tuple[int, str]], Inspection] = inspect_file,
) -> CheckReport:
    """Decode every image of a data set.

    Bad files are counted, not raised. What is known of each file lies in a temporary table on disk, so memory does not
    grow with the number of files in a folder. `on_progress` is given the files done, all files, and the bad ones among
    those done.
    """
    began = time.monotonic()
    table = sqlite3.connect("")  # on disk, without a name, gone when closed
    try:
        table.text_factory = os.fsdecode  # names that are not UTF-8 included
        table.create_function("folded", 1, _folded, deterministic=True)
        table.execute(_TABLE)
        table.executemany("insert into files (split, labels, path) values (?, ?, ?)", contents.rows)
        total = table.execute("select count(*) from files").fetchone()[0]
        bad = 0
        files = ((number, os.path.join(contents.root, path)) for number, path in _paths(table, total))
        for done, found in enumerate(in_processes(inspect, files, workers=workers, lost=lost_file), start=1):
            bad += bool(found.error)
            _store(table, found)
            if done % _BATCH == 0:
                table.commit()
            on_progress(done, total, bad)
        findings = [*contents.findings, *describe_findings(table, contents)]
        if contents.further is not None:
            findings += contents.further(_looked(table), workers)
        return CheckReport.of(
            table,
            contents.root,
            contents.splits,
            contents.names,
            contents.sets,
            findings,
            seconds=time.monotonic() - began,
            to_train=contents.to_train,
        )
    finally:
        table.close()


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


def _looked(table: sqlite3.Connection) -> dict[str, Looked]:
    """The pictures by their paths."""
    rows = table.execute("select path, width, height, orientation, mode from files")
    return {
        os.fsdecode(path): Looked(None, 1) if width is None else Looked((width, height), orientation, mode)
        for path, width, height, orientation, mode in rows
    }


def _folded(path: bytes) -> bytes:
    folder, name = os.path.split(os.fsdecode(path))
    return os.fsencode(os.path.join(folder, fold_name(name)))
