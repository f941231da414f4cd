"""The pictures of a unit, one after the other, wherever they lie."""

import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hybridvit.data.inputs import Content, Shown
from hybridvit.data.shards.remote import Remote, is_url
from hybridvit.data.shards.tar import open_tar
from hybridvit.data.url import fetch
from hybridvit.errors import ImageDecodeError, SourceFault
from hybridvit.jobs.units import Unit, image_members, open_table


def pictures(unit: Unit, folder: str) -> Generator[Shown, None, None]:
    """The pictures, named as the answers call them; of one that cannot be had, why. Relative paths begin at `folder`.

    Raises DatasetError for a tar or Parquet file that cannot be read any more.
    """
    if unit.form == "tar":
        yield from _of_tar(unit.source, folder)
    elif unit.form == "parquet":
        yield from _of_table(unit, folder)
    else:
        for name in unit.images:
            yield Shown(name, _content(name, folder))


def _content(name: str, folder: str) -> Content:
    """The file, or what is behind an address."""
    if not is_url(name):
        return Path(folder, name)
    try:
        protocol = name.partition("://")[0].lower()
        return fetch(name) if protocol in ("http", "https") else Remote(protocol).read_bytes(name)
    except ImageDecodeError as error:
        return error
    except SourceFault as fault:
        return ImageDecodeError(str(fault))


def _of_tar(tar: str, folder: str) -> Generator[Shown, None, None]:
    with ExitStack() as stack:
        path = os.path.join(folder, tar)
        if is_url(tar):
            path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory(prefix="hybridvit-")), "shard.tar")
            Remote(tar.partition("://")[0]).fetch(tar, Path(path), lambda _: "")
        archive = stack.enter_context(open_tar(path, tar))
        for member in image_members(archive):
            file = archive.extractfile(member)
            yield Shown(f"{tar}/{member.name}", file.read() if file is not None else b"")


def _of_table(unit: Unit, folder: str) -> Generator[Shown, None, None]:
    """Rows of a row group; paths are relative to the table's folder, and bytes are named by the number of their row."""
    with open_table(unit.source, folder) as file:
        before = sum(file.metadata.row_group(group).num_rows for group in range(unit.row_group))
        column = file.read_row_group(unit.row_group, columns=[unit.column]).column(0)
        for place in range(unit.first, unit.first + unit.num_images):
            yield _of_cell(column[place].as_py(), unit.source, before + place, folder)


def _of_cell(value: Any, table: str, row: int, folder: str) -> Shown:
    name = f"{table}#{row}"
    if isinstance(value, dict):  # of the datasets library
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if value is None:
        return Shown(name, ImageDecodeError(f"{name} holds no image: the cell is empty."))
    if isinstance(value, bytes):
        return Shown(name, value)
    beside = value if is_url(value) or os.path.isabs(value) else _beside(table, value)
    return Shown(beside, _content(beside, folder))


def _beside(table: str, name: str) -> str:
    return f"{table.rpartition('/')[0]}/{name}" if is_url(table) else os.path.join(os.path.dirname(table), name)
