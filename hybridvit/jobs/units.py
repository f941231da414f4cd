"""What a job is to answer, cut into units of work, and listed once in a file that all workers read."""

import glob
import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hybridvit.data.scan import LeftOut, Say, check_text, extensions, is_image, quiet, walk
from hybridvit.data.shards.remote import Remote, is_url
from hybridvit.data.shards.tar import members_of, open_tar
from hybridvit.errors import DatasetError, UsageError, nearest, one_line, some

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

UNKNOWN = -1
IMAGE_COLUMNS = ("image", "img", "bytes", "path", "image_path", "file_path", "file_name", "url")
TAR, PARQUET = ".tar", ".parquet"
Form = Literal["files", "tar", "parquet"]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work: its answers are one file, whose name depends on nothing else."""

    number: int
    of: int  # units of the job
    form: Form
    images: tuple[str, ...] = ()  # of "files": paths and addresses
    source: str = ""  # the tar or Parquet file
    column: str = ""  # of a Parquet file
    row_group: int = 0
    first: int = 0  # row of the row group
    num_images: int = UNKNOWN  # of a tar file behind a URL

    @property
    def part(self) -> str:
        """The name of the file with its answers."""
        return f"part-{self.number:05}-of-{self.of:05}.parquet"


class Listed(NamedTuple):
    """What the list of a job comes to."""

    num_units: int
    num_images: int  # that are known of
    sha256: str  # of what is listed


@dataclass
class Inputs:
    """What the words of a command line mean."""

    files: set[str] = field(default_factory=set)
    tars: set[str] = field(default_factory=set)
    tables: set[tuple[str, str]] = field(default_factory=set)  # Parquet file, column ("": to be found)


def find(words: Iterable[str], *, say: Say = quiet) -> Inputs:
    """Image files, tar files and Parquet files that the words mean: themselves, in folders, by patterns, behind URLs.

    `say` is told what is left out. Raises DatasetError naming the first word that matches nothing, UsageError for a
    protocol that cannot be read.
    """
    inputs = Inputs()
    for word in words:
        name, _, column = word.partition("#") if f"{PARQUET}#" in word else (word, "", "")
        if is_url(name):
            hits = [name] if name.startswith("http") or _is_file(name) else Remote(name.partition("://")[0]).find(name)
            is_named = hits == [name]
        else:
            is_named = os.path.lexists(name) and not os.path.isdir(name)
            hits = [name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True))
        left_out = LeftOut()
        paths = (path for hit in hits for path in (walk(hit) if os.path.isdir(hit) else (hit,)))
        if not sum(_take(inputs, path, column, is_named, left_out) for path in paths):
            fault = "matches no image" if hits or glob.has_magic(name) else "does not exist"
            raise DatasetError(
                f"'{word}' {fault}{left_out.advice}. Give images ({extensions()}), folders or patterns of them, tar "
                "files, Parquet files (photos.parquet#column), or URLs of these."
            )
        left_out.tell(name, say)
    return inputs


def _is_file(name: str) -> bool:
    return is_image(name) or name.endswith((TAR, PARQUET))


def _take(inputs: Inputs, path: str, column: str, is_named: bool, left_out: LeftOut) -> bool:
    """Whether it was taken. Parquet files are where they are named alone: a folder of pictures may hold answers too."""
    if path.endswith(TAR):
        inputs.tars.add(path)
    elif path.endswith(PARQUET) and (is_named or column):
        inputs.tables.add((path, column))
    elif is_named or list(left_out.images([path])):
        inputs.files.add(path)
    else:
        return False
    return True


def units_of(inputs: Inputs, *, size: int, folder: str) -> Iterator[dict[str, Any]]:
    """The fields of each unit: files in groups of `size`, a tar file, a row group in parts of `size`; all sorted.

    `folder` is where relative paths begin. Raises DatasetError for a tar or Parquet file that cannot be read.
    """
    files = sorted(inputs.files)
    for start in range(0, len(files), size):
        images = files[start : start + size]
        yield {"form": "files", "images": images, "num_images": len(images)}
    for tar in sorted(inputs.tars):
        yield {"form": "tar", "source": tar, "num_images": UNKNOWN if is_url(tar) else count_members(tar, folder)}
    for table, wanted in sorted(inputs.tables):
        with open_table(table, folder) as file:
            column = find_column(table, file, wanted)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                for first in range(0, rows, size):
                    known = {"form": "parquet", "source": table, "column": column, "row_group": group, "first": first}
                    yield known | {"num_images": min(size, rows - first)}


def count_members(tar: str, folder: str) -> int:
    """The images in a tar file. Raises DatasetError for one without, or that is damaged."""
    with open_tar(os.path.join(folder, tar), tar) as archive:
        count = sum(1 for _ in image_members(archive))
    if not count:
        raise DatasetError(f"{tar} has no images: no member there ends in one of {extensions()}.")
    return count


def image_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that are named like images. Raises DatasetError for a name that no table can hold."""
    for member in members_of(archive):
        name = member.name.rpartition("/")[2]
        if member.isreg() and not name.startswith(".") and is_image(name):
            check_text([member.name])
            yield member


@contextmanager
def open_table(table: str, folder: str) -> "Iterator[ParquetFile]":
    """A Parquet file, opened. Raises DatasetError for what is none, here or where damage shows once it is read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        source = Remote(table.partition("://")[0]).open(table) if is_url(table) else os.path.join(folder, table)
        with ParquetFile(source) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise DatasetError(f"{table} cannot be read as Parquet: {one_line(error)}. Write it again.") from error


def find_column(table: str, file: "ParquetFile", wanted: str) -> str:
    """The column of images: that wanted, or the first with a usual name. Raises DatasetError where there is none."""
    from pyarrow import types

    names = file.schema_arrow.names
    if wanted and wanted not in names:
        raise DatasetError(f"{table} has no column '{wanted}'. {nearest(wanted, names)}.")
    column = wanted or next((name for name in IMAGE_COLUMNS if name in names), "")
    if not column:
        raise DatasetError(
            f"{table} has no column named like images ({', '.join(IMAGE_COLUMNS)}); its columns are "
            f"{some(names, quoted=True)}. Name it: {table}#{names[0] if names else 'column'}"
        )
    kind = file.schema_arrow.field(column).type
    if types.is_struct(kind):  # of the datasets library: bytes, and the path that they had
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if not any(is_kind(kind) for is_kind in (types.is_binary, types.is_large_binary, types.is_string,
                                             types.is_large_string)):  # fmt: skip
        raise DatasetError(
            f"The column '{column}' of {table} holds {kind}, but images are bytes or paths. Name another: "
            f"{table}#COLUMN"
        )
    return column


def write_list(words: Sequence[str], target: Path, *, size: int, folder: str, say: Say = quiet) -> Listed:
    """Find what the words mean and write it to `target`, a row group for each unit. Raises as `find`, `units_of`."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    if size < 1:
        raise UsageError(f"--unit is {size}, but a unit has at least 1 image. Leave it out for 1024.")
    schema = pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in ("form", "source", "column")),
            ("images", pyarrow.list_(pyarrow.string())),
            *((name, pyarrow.int64()) for name in ("row_group", "first", "num_images")),
        ]
    )
    digest, num_units, num_images = hashlib.sha256(), 0, 0
    with ParquetWriter(target, schema, compression="zstd") as writer:
        for known in units_of(find(words, say=say), size=size, folder=folder):
            row: dict[str, Any] = {"source": "", "column": "", "images": [], "row_group": 0, "first": 0} | known
            check_text((row["source"], *row["images"]))
            digest.update(json.dumps(row, sort_keys=True).encode())
            writer.write_table(pyarrow.Table.from_pylist([row], schema))
            num_units, num_images = num_units + 1, num_images + max(known["num_images"], 0)
    if not num_units:
        raise DatasetError("There are no images. Give image files, folders or patterns of them.")
    return Listed(num_units, num_images, digest.hexdigest())


def read_units(file: "ParquetFile", numbers: Iterable[int]) -> Iterator[Unit]:
    """Some units of a list that was written."""
    for number in numbers:
        (row,) = file.read_row_group(number).to_pylist()
        yield Unit(number=number, of=file.num_row_groups, **(row | {"images": tuple(row["images"])}))
