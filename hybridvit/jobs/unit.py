"""One unit of work: pictures in, one Parquet file out, under a name that depends on the unit alone.

A unit that is done twice, because a machine was lost or a job went on elsewhere, is the same file: so every picture is
in the table exactly once, whatever calls this.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hybridvit.jobs.answerer import Answerer
from hybridvit.jobs.pictures import pictures
from hybridvit.jobs.place import Place
from hybridvit.jobs.units import Unit

if TYPE_CHECKING:
    from pyarrow import Schema, Table

RECEIPT = "hybridvit.receipt"
_ROWS = 64  # that are kept as Python values before they become columns
_ROW_GROUP_BYTES = 8 << 20

Count = Callable[[int], None]
"""What is told how many pictures of a unit are done."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was done, by whom, and how long it took."""

    unit: int
    rows: int
    bad: int
    seconds: float
    num_bytes: int = 0  # of the file
    worker: str = ""  # machine and process


def this_worker() -> str:
    """The machine and the process."""
    return f"{socket.gethostname()}/{os.getpid()}"


def infer_unit(
    unit: Unit, answerer: Answerer, out: Place, *, folder: str = ".", count: Count = lambda done: None
) -> Receipt:
    """Answer a unit and write its part, whole or not at all; relative paths begin at `folder`.

    Raises DatasetError where a tar or Parquet file of it cannot be read, DiskFull where the part cannot be written.
    """
    with closing(answerer.rows(pictures(unit, folder))) as rows:
        return write_part(unit, rows, answerer.schema, out, count=count)


def write_part(
    unit: Unit, rows: Iterable[dict[str, Any]], schema: "Schema", out: Place, *, count: Count = lambda done: None
) -> Receipt:
    """Write rows as the part of a unit; at most one row group of them is in memory."""
    from pyarrow.parquet import ParquetWriter

    began, num_rows, num_bad = time.monotonic(), 0, 0
    waiting: list[dict[str, Any]] = []
    with out.writing(unit.part) as path:
        with ParquetWriter(path, schema, compression="zstd") as writer:
            groups = _RowGroups(writer, schema)
            for row in rows:
                waiting.append(row)
                num_rows, num_bad = num_rows + 1, num_bad + (row.get("error") is not None)
                count(num_rows)
                if len(waiting) == _ROWS:
                    groups.add(waiting)
                    waiting = []
            groups.add(waiting)
            groups.flush()
            receipt = Receipt(
                unit=unit.number, rows=num_rows, bad=num_bad, seconds=time.monotonic() - began, worker=this_worker()
            )
            writer.add_key_value_metadata({RECEIPT: json.dumps(asdict(receipt))})
        size = path.stat().st_size
    return Receipt(**(asdict(receipt) | {"num_bytes": size}))


class _RowGroups:
    """Rows as columns, written once they are large enough."""

    def __init__(self, writer: Any, schema: "Schema") -> None:
        self._writer, self._schema = writer, schema
        self._tables: list[Table] = []
        self._bytes = 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        from pyarrow import Table

        table = Table.from_pylist(rows, self._schema)
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes > _ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        from pyarrow import concat_tables

        table = concat_tables(self._tables).combine_chunks() if self._tables else self._schema.empty_table()
        if table.num_rows:
            self._writer.write_table(table)
        self._tables, self._bytes = [], 0


def read_receipt(place: Place, part: str) -> Receipt:
    """The receipt that is in a part, for a job that goes on."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(place.open(part)) as file:
        return Receipt(**json.loads(file.metadata.metadata[RECEIPT.encode()]))
