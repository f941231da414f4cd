"""A table with any number of labels in each row: in one cell, or as a column of 0 and 1 for each class."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hybridvit.data.listing import Labels, Listing
from hybridvit.data.scan import Say, check_known, file_size, quiet
from hybridvit.data.table import LABEL_COLUMNS, Columns, column_like, paths_in, rank, read_columns
from hybridvit.errors import DatasetError, nearest, some
from hybridvit.tasks.multilabel.config import SEPARATORS, MultilabelData

USUAL = ("labels", "classes", "targets", "categories", "tags", "finding labels", *LABEL_COLUMNS)
BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
DEFAULTS = MultilabelData()


def list_labels(
    table: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    data: MultilabelData = DEFAULTS,
    size_of: Callable[[str], int] = file_size,
    say: Say = quiet,
) -> Listing[Labels]:
    """The images that a table names, by paths from its own folder (or absolute ones), each once.

    Labels in cells make classes in the order of `list_table`, columns in their own; or the classes are those given, the
    map a model was trained with. `say` is told which columns are taken for classes, and which rows are taken together.

    Raises `DatasetError` for a table that cannot be read or is empty, columns that are absent, a row without path, a
    file that is absent (as `size_of` does), a mark that is neither 0 nor 1, or a label that `class_names` has not.
    """
    table = Path(table)
    columns = read_columns(table)
    paths = paths_in(table, columns, data.image_column)
    marked = _class_columns(table, columns, data, class_names, say)
    if marked:
        rows = _marked(table, columns, marked)
    else:
        cells = columns[column_like(table, columns, "label", data.label_column, USUAL)]
        rows = _named(table, cells, data.label_separator, class_names)
    of_path = _by_path(table, paths, rows, adds_up=not marked, say=say)
    found = marked or sorted(set().union(*of_path.values()), key=rank)
    names = found if class_names is None else list(class_names)
    check_known(found, names, source=table, otherwise="remove these labels")
    index = {name: label for label, name in enumerate(names)}
    digest = hashlib.sha256()
    for path, labels in of_path.items():
        size = size_of(os.path.join(table.parent, path))
        digest.update(os.fsencode(path) + b"\0" + "\0".join(sorted(labels)).encode() + b"\0\0%d\0" % size)
    return Listing(
        root=str(table.parent),
        paths=tuple(os.path.join(table.parent, path) for path in of_path),
        labels=tuple(tuple(sorted(index[name] for name in labels)) for labels in of_path.values()),
        class_names=tuple(names),
        fingerprint=digest.hexdigest(),
    )


def _class_columns(
    table: Path, columns: Columns, data: MultilabelData, known: Sequence[str] | None, say: Say
) -> Sequence[str]:
    """The columns that are classes; none where one column has all labels."""
    for name in data.label_columns:
        if name not in columns:
            raise DatasetError(
                f"{table} has no column '{name}'. {nearest(name, columns)}. Name the classes: --data.label_columns."
            )
    if data.label_columns:
        return data.label_columns
    if data.label_column:
        return ()
    if known and columns.keys() >= set(known):
        return known
    if any(name.lower() in USUAL for name in columns):
        return ()
    found = [name for name, cells in columns.items() if all(cell.lower() in BITS for cell in cells)]
    if found:
        others = some([name for name in columns if name not in found], quoted=True)
        say(f"Each column of 0 and 1 in {table} is a class: {some(found, quoted=True)}. No classes are: {others}.")
    return found


def _marked(table: Path, columns: Columns, names: Sequence[str]) -> list[set[str]]:
    """The labels of each row, from a column for each."""
    rows: list[set[str]] = [set() for _ in columns[names[0]]]
    for name in names:
        for number, (cell, labels) in enumerate(zip(columns[name], rows, strict=True), start=1):
            if cell.lower() not in BITS:
                raise DatasetError(
                    f"Row {number} of {table} has '{cell}' under '{name}', but the column of a class has 1 or 0. "
                    "Correct it, remove the row, or name the columns that are classes: --data.label_columns '[...]'."
                )
            if BITS[cell.lower()]:
                labels.add(name)
    return rows


def _named(table: Path, cells: Sequence[str], separator: str, known: Sequence[str] | None) -> list[set[str]]:
    """The labels of each row, from one cell; with the separator that makes them `known`, if there is one."""

    def parted(by: str) -> list[set[str]]:
        return [{label for part in cell.split(by) if (label := part.strip())} for cell in cells]

    if known:
        fits = (rows for rows in map(parted, (separator, *SEPARATORS)) if set().union(*rows) <= set(known))
        return next(fits, parted(separator))
    if separator in SEPARATORS and not any(separator in cell for cell in cells):
        for other in SEPARATORS:
            if example := next((cell for cell in cells if other in cell), ""):
                raise DatasetError(
                    f"No cell of {table} has '{separator}' between labels, but '{example}' has '{other}'. Name what "
                    f"stands between them: --data.label_separator '{other}', or a character that no name has."
                )
    return parted(separator)


def _by_path(
    table: Path, paths: Sequence[str], rows: Sequence[set[str]], *, adds_up: bool, say: Say
) -> dict[str, set[str]]:
    """The labels of each path; several rows of one add up, where they name labels, as such tables mean it."""
    found: dict[str, set[str]] = {}
    for path, labels in zip(paths, rows, strict=True):
        if not adds_up and found.get(path, labels) != labels:
            raise DatasetError(f"{table} has two rows of {path}, with other marks in each. Keep one.")
        found[path] = found.get(path, set()) | labels
    if len(found) < len(paths):
        say(f"{table} has {len(paths):,} rows of {len(found):,} images: those of one image are taken together.")
    return found
