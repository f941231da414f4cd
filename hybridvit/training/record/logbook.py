"""The numbers of a run in files, consistent with the checkpoint that the run goes on from.

Each of these observers is told from which step the run goes on: rows that a killed run wrote after it are dropped, for
they come again. Only rank 0 has them.
"""

import csv
import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridvit.atomic import write_text
from hybridvit.errors import DiskFull, one_line
from hybridvit.training.observe import Observer, Row

STEP_COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm", "images_per_second", "data_wait", "seconds")
FLUSH_SECONDS = 5.0

log = logging.getLogger(__name__)


class MetricsCsv(Observer):
    """One row per validation, in metrics.csv."""

    def __init__(self, path: Path, *, history: Sequence[Row]) -> None:
        self._path = path
        self._rows = [dict(row) for row in history]
        if self._rows or path.exists():
            self._write()

    def validated(self, row: Row) -> None:
        self._rows.append(dict(row))
        self._write()

    def _write(self) -> None:
        # Written whole each time: there are few rows, and a reader or a kill never meets half of one.
        write_text(self._path, _as_csv(list(self._rows[0]) if self._rows else [], self._rows))


class StepsCsv(Observer):
    """One row per logged step, in steps.csv, appended every few seconds; the terms of a loss are left to the curves.

    `first_step`: rows of later steps, and one that a kill cut short, are dropped at the start.
    """

    def __init__(self, path: Path, *, first_step: int = 0) -> None:
        rows = [row for row in read_steps(path) if row["step"] <= first_step]
        write_text(path, _as_csv(STEP_COLUMNS, rows))
        self._path = path
        self._waiting: list[Row] = []
        self._flushed = time.monotonic()

    def logged(self, row: Row) -> None:
        self._waiting.append(row)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def validated(self, row: Row) -> None:
        self._flush()

    def ended(self, error: BaseException | None) -> None:
        self._flush()

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        try:
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(_as_csv(STEP_COLUMNS, rows, head=False))
        except OSError as error:
            raise DiskFull(
                f"{self._path} could not be written ({error.strerror}). The checkpoints, if there are any, are "
                "untouched. Free some space and run it again with --resume auto."
            ) from error


class TensorBoard(Observer):
    """The same as curves: train/* and validation/*.

    What cannot be imported or written is one warning: the run goes on, and the CSV files have all numbers.
    """

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        self._writer: Any = None
        with self._survived():
            from torch.utils.tensorboard import SummaryWriter  # here: it imports protobuf, which others may have broken

            self._writer = SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)

    def logged(self, row: Row) -> None:
        self._add("train", row, without=("step", "epoch", "seconds"))

    def validated(self, row: Row) -> None:
        self._add("validation", row, without=("step",))
        with self._survived():
            if self._writer is not None:
                self._writer.flush()

    def ended(self, error: BaseException | None) -> None:
        with self._survived():
            if self._writer is not None:
                self._writer.close()

    def _add(self, group: str, row: Row, *, without: Sequence[str]) -> None:
        with self._survived():
            for name, value in row.items():
                if self._writer is not None and name not in without:
                    self._writer.add_scalar(f"{group}/{name}", value, int(row["step"]))

    @contextmanager
    def _survived(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # an import, a full disk, its own thread: training is worth more than any
            self._writer = None
            log.warning(
                "TensorBoard takes no more numbers (%s: %s), and the run goes on without it: metrics.csv and steps.csv "
                "have them all. `hybridvit doctor` tells whether the package works.",
                type(error).__name__,
                one_line(error),
            )


def read_steps(path: Path) -> list[dict[str, float]]:
    """The whole rows of a steps.csv; none if there is no such file or it has other columns."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    rows: list[dict[str, float]] = []
    for cells in csv.reader(line for line in lines[1:] if line.endswith("\n")):
        try:
            rows.append({"step": int(cells[0])} | dict(zip(STEP_COLUMNS[1:], map(float, cells[1:]), strict=True)))
        except (ValueError, IndexError):
            continue
    return rows


def _as_csv(columns: Sequence[str], rows: Sequence[Row], *, head: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", extrasaction="ignore")
    if head and columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
