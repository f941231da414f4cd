"""Answers as one file: Parquet for data frames, or JSON lines; one row for each picture, or frame of a video."""

from contextlib import ExitStack
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from hybridvit.answers.sink import Sink, row_of
from hybridvit.atomic import check_writable, replacing
from hybridvit.errors import UsageError
from hybridvit.predictor import Answer

if TYPE_CHECKING:
    from pyarrow import Table

_ROWS = 1000  # that are kept as Python values before they become columns


def table_at(path: Path) -> Sink:
    """What writes the answers to `path`, as its suffix says. Raises UsageError and DiskFull before any work."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"The output is {path}, but must end in .parquet (for data frames) or .jsonl (JSON lines).")
    check_writable(path)
    return ParquetFile(path) if path.suffix == ".parquet" else LinesFile(path)


class LinesFile(Sink):
    """One JSON object in each line."""

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, ExitStack()
        self._file: IO[str] | None = None

    def __enter__(self) -> "LinesFile":
        temporary = self._stack.enter_context(replacing(self._path))
        self._file = self._stack.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
        return self

    def take(self, answer: Answer) -> None:
        assert self._file is not None
        self._file.write(dumps(row_of(answer), ensure_ascii=False) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)


class ParquetFile(Sink):
    """Columns of the same names as the keys of JSON lines; lists and objects stay such, as pandas shows them."""

    def __init__(self, path: Path) -> None:
        if find_spec("pyarrow") is None:
            raise UsageError(
                f'{path} is Parquet, which needs the package pyarrow. Run: pip install "hybridvit[parquet]", or give a '
                "name that ends in .jsonl."
            )
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._tables: list[Table] = []

    def take(self, answer: Answer) -> None:
        self._rows.append(row_of(answer))
        if len(self._rows) == _ROWS:
            self._pack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        from pyarrow import concat_tables
        from pyarrow.parquet import write_table

        self._pack()
        with replacing(self._path) as temporary:
            write_table(concat_tables(self._tables, promote_options="permissive"), temporary)

    def _pack(self) -> None:
        """The rows so far as columns, which take less memory; where one has no value it is null."""
        import pyarrow

        names = dict.fromkeys(name for row in self._rows for name in row) or {"image": None}
        self._tables.append(
            pyarrow.table({name: pyarrow.array([row.get(name) for row in self._rows]) for name in names})
        )
        self._rows = []
