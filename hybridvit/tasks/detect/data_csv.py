"""A table with a row for each box: file, x1, y1, x2, y2, label."""

import os
from collections.abc import Sequence
from pathlib import Path

from hybridvit.data.table import IMAGE_COLUMNS, LABEL_COLUMNS, Columns, is_table, read_columns
from hybridvit.errors import DatasetError
from hybridvit.tasks.detect.data_lists import Category, Drafted, Faults, Split
from hybridvit.tasks.detect.data_voc import named

_SIDES = (("x1", "xmin", "left"), ("y1", "ymin", "top"), ("x2", "xmax", "right"), ("y2", "ymax", "bottom"))


def has_boxes(table: Path) -> bool:
    """Whether a file is a table whose columns are named like corners."""
    if not is_table(table) or table.suffix.lower() == ".parquet":
        return False
    try:
        with table.open(encoding="utf-8-sig") as file:  # the head alone: tables of other tasks can be long
            head = file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    names = [name.strip().strip('"') for name in head.split(max(",;\t", key=head.count))]
    return None not in _corners(dict.fromkeys(names, ()))


def read_csv(table: Path, root: Path, categories: Sequence[Category] | None = None) -> Split:
    """The pictures of a table; a row with a path alone is a picture without objects.

    Raises DatasetError for columns that are missing.
    """
    columns, faults = read_columns(table), Faults()
    sides = _corners(columns)
    file = _column(columns, (*IMAGE_COLUMNS, "filename"))
    label = _column(columns, LABEL_COLUMNS)
    if file is None or label is None or None in sides:
        raise DatasetError(
            f"{table} has the columns {', '.join(columns)}, but a table of boxes has file, x1, y1, x2, y2 and label. "
            "Name them so."
        )
    corners = [columns[side] for side in sides if side is not None]
    drafted: dict[str, tuple[Drafted, list[str]]] = {}
    for number, (path, name, *numbers) in enumerate(zip(columns[file], columns[label], *corners, strict=True), start=1):
        draft, names = drafted.setdefault(path, (Drafted(), []))
        if not any((name, *numbers)):
            continue
        try:
            draft.add([float(value) for value in numbers], 0)
            names.append(name)
        except ValueError:
            faults.add("bad-row", f"{table.name}, row {number}: {path} {', '.join(numbers)}")
    rows = [(draft, names, os.path.join(table.parent, path), None) for path, (draft, names) in drafted.items()]
    return named(list(rows), root, table, "CSV", faults, categories)


def _corners(columns: Columns) -> list[str | None]:
    return [_column(columns, side) for side in _SIDES]


def _column(columns: Columns, usual: Sequence[str]) -> str | None:
    known = {name.lower(): name for name in columns}
    return next((known[name] for name in usual if name in known), None)
