"""A table with a row for each image as a data set: CSV, TSV or Parquet with a column of paths and one of labels."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hybridvit.data.encoded import ImageOptions
from hybridvit.data.folder import held_out, opened
from hybridvit.data.listing import Label, Listing
from hybridvit.data.samples import Opened
from hybridvit.data.scan import Say, check_known, file_size, quiet
from hybridvit.errors import DatasetError, UsageError, nearest, one_line, some

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig

ENDINGS = (".csv", ".tsv", ".parquet")
IMAGE_COLUMNS = ("path", "image_path", "filepath", "file_path", "file", "filename", "file_name", "image", "img")
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "label_name")
BETWEEN = ";"  # the items of one cell
Columns = Mapping[str, Sequence[str]]  # by name, as text
Lists = Callable[[Path, Sequence[str] | None], Listing[Label]]
"""What gives the images of one table, with the class map that is given, or one of its own."""


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file named like a table."""
    return Path(path).suffix.lower() in ENDINGS and Path(path).is_file()


def list_table(
    table: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    image_column: str = "",
    label_column: str = "",
    size_of: Callable[[str], int] = file_size,
) -> Listing[int]:
    """The images that a table names, by paths from its own folder (or absolute ones), in the order of its rows.

    The classes are the different labels, sorted by bytes, or as numbers if all are whole numbers; or those given, the
    map a model was trained with. The columns are found by name, or named.

    Raises `DatasetError` for a table that cannot be read or is empty, columns that are absent, a row without path or
    label, a file that is absent (as `size_of` does), an image with two labels, or a label that `class_names` does not
    have; `UsageError` without the package that reads Parquet.
    """
    table = Path(table)
    columns = read_columns(table)
    paths = paths_in(table, columns, image_column)
    label_column = column_like(table, columns, "label", label_column, LABEL_COLUMNS)
    if "" in columns[label_column]:
        raise no_cell(table, columns[label_column].index(""), label_column)
    rows = list(zip(paths, columns[label_column], strict=True))
    found = sorted({label for _, label in rows}, key=rank)
    names = found if class_names is None else list(class_names)
    check_known(found, names, source=table, otherwise="remove these rows")
    index = {name: label for label, name in enumerate(names)}
    digest, label_of = hashlib.sha256(), dict[str, str]()
    for path, label in rows:
        if label_of.setdefault(path, label) != label:
            raise DatasetError(
                f"{table} gives {path} two labels, '{label_of[path]}' and '{label}', but an image has one. Keep "
                "one row."
            )
        size = size_of(os.path.join(table.parent, path))
        digest.update(os.fsencode(path) + b"\0" + label.encode() + b"\0%d\0" % size)
    return Listing(
        root=str(table.parent),
        paths=tuple(os.path.join(table.parent, path) for path, _ in rows),
        labels=tuple(index[label] for _, label in rows),
        class_names=tuple(names),
        fingerprint=digest.hexdigest(),
    )


def open_tables(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """The images that two tables in data.root name, or one and a part of it. Raises as `list_table`."""
    return opened(list_tables, data, train, validation)


def list_tables(data: "DataConfig", *, say: Say = quiet) -> tuple[Listing[int], Listing[int]]:
    """The training and the validation images, with one class map, that of the training images.

    `say` is told of what is not used. Raises as `list_table`, and where a table is missing.
    """
    return in_two(partial(list_table, image_column=data.image_column, label_column=data.label_column), data, say=say)


def in_two(lists: Lists[Label], data: "DataConfig", *, say: Say) -> tuple[Listing[Label], Listing[Label]]:
    """What `lists` gives of two tables in data.root, or of one and a part of it; the class map is the first one's."""
    root = Path(data.root).expanduser()
    if is_table(root):
        parts = held_out(lists(root, None), data, unused=None, say=say)
        if parts is None:
            raise DatasetError(
                f"data.root is the table {root}, which leaves none to validate on. Hold out a fifth of it with "
                "--data.val_share 0.2, or give its folder as data.root and the tables as data.train and data.val."
            )
        return parts
    listing = lists(_find(root, data.train, "train"), None)
    unused = _there(root, data.val) if data.val != data.train else None
    return held_out(listing, data, unused=unused, say=say) or (
        listing,
        lists(_find(root, data.val, "val"), listing.class_names),
    )


def _there(root: Path, name: str) -> Path | None:
    """The table of that name in the folder, whose ending may be left out; None if there is none."""
    return next(filter(is_table, (root / name, *(root / f"{name}{ending}" for ending in ENDINGS))), None)


def _find(root: Path, name: str, key: str) -> Path:
    """As `_there`. Raises DatasetError where there is none, with the key that would name it."""
    if path := _there(root, name):
        return path
    there = sorted(path.name for path in root.iterdir() if is_table(path)) if root.is_dir() else []
    raise DatasetError(
        f"{root} has no table '{name}' (.csv, .tsv or .parquet); its tables are: {some(there, quoted=True) or 'none'}. "
        f"Name one with --data.{key}, or hold out a part of the other with --data.val_share 0.2."
    )


def all_listed(lists: Lists[Label], data: "DataConfig") -> dict[str, Listing[Label]]:
    """What `lists` gives of the table data.root, or of each of those in it, by the name of the split."""
    root = Path(data.root).expanduser()
    if is_table(root):
        return {"": lists(root, None)}
    tables = {data.train: _find(root, data.train, "train"), data.val: _there(root, data.val)}
    return {name: lists(table, None) for name, table in tables.items() if table is not None}


def paths_in(table: Path, columns: Columns, image_column: str = "") -> Sequence[str]:
    """The path of each row. Raises DatasetError where there is none, or no row."""
    image_column = column_like(table, columns, "image", image_column, IMAGE_COLUMNS)
    paths = columns[image_column]
    if not paths:
        raise DatasetError(f"{table} has no rows. Add images, or name another table.")
    if "" in paths:
        raise no_cell(table, paths.index(""), image_column)
    return paths


def no_cell(table: Path, place: int, column: str) -> DatasetError:
    """What to raise for an empty cell of row `place`, from 0."""
    return DatasetError(f"Row {place + 1} of {table} has no {column}. Fill it in, or remove the row.")


def read_columns(table: Path) -> Columns:
    """All columns of a table. Raises DatasetError for one that cannot be read, UsageError without pyarrow."""
    try:
        if table.suffix.lower() == ".parquet":
            return _parquet(table)
        with table.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=head.count), strict=True)
            names = next(reader, [])
            if twice := [name for name, count in Counter(map(str.strip, names)).items() if count > 1]:
                raise DatasetError(f"The head of {table} names {some(twice, quoted=True)} twice. Rename one of them.")
            rows = [row + [""] * (len(names) - len(row)) for row in reader if row]
            for number, row in enumerate(rows, start=1):
                if any(row[len(names) :]):
                    raise DatasetError(
                        f"Row {number} of {table} has {len(row)} cells, but the head names {len(names)} columns. Put a "
                        f"cell that holds '{reader.dialect.delimiter}' into quotes."
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table} cannot be read as a table: {one_line(error)}. Save it as CSV in UTF-8.") from error
    return {name.strip(): [row[place].strip() for row in rows] for place, name in enumerate(names)}


def _parquet(table: Path) -> Columns:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise UsageError(
            f'{table} is Parquet, which needs the package pyarrow. Run: pip install "hybridvit[parquet]".'
        ) from error
    try:
        columns = read_table(table).to_pydict()
    except ArrowException as error:
        raise DatasetError(f"{table} cannot be read as Parquet: {one_line(error)}. Write it again.") from error
    return {name: [_text(value) for value in values] for name, values in columns.items()}


def _text(value: object) -> str:
    """A cell as a CSV file would have it."""
    return BETWEEN.join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def column_like(table: Path, columns: Columns, what: str, wanted: str, usual: Sequence[str]) -> str:
    """The name of a column: that wanted, or the first with a usual name. Raises DatasetError where there is none."""
    if wanted in columns:
        return wanted
    fix = f"Name it: --data.{what}_column COLUMN for train, --{what}_column COLUMN for evaluate."
    if wanted:
        raise DatasetError(f"{table} has no column '{wanted}'. {nearest(wanted, columns)}. {fix}")
    known = {name.lower(): name for name in reversed(list(columns))}
    found = next((known[name] for name in usual if name in known), None)
    if found is None:
        raise DatasetError(
            f"{table} has no column named like {'paths' if what == 'image' else 'labels'} ({', '.join(usual)}); its "
            f"columns are {some(list(columns), quoted=True) or 'none'}. {fix}"
        )
    return found


def rank(label: str) -> tuple[bool, int, bytes]:
    """What to sort class names by: whole numbers before other names, by their value."""
    is_number = label.isdecimal()
    return not is_number, int(label) if is_number else 0, os.fsencode(label)
