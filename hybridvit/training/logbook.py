"""The record of a run: metrics.csv and TensorBoard, consistent with the checkpoint that the run goes on from."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from hybridvit.atomic import write_text

Row = Mapping[str, float]


class Logbook:
    """Writes one row per validation to metrics.csv, and rows and training losses to TensorBoard.

    `history` is what the checkpoint knows: rows that a killed run wrote after it are dropped, for they come again.
    """

    def __init__(self, metrics: Path, tensorboard: Path, *, history: Sequence[Row], step: int) -> None:
        self._metrics = metrics
        self._rows = [dict(row) for row in history]
        self._writer = SummaryWriter(str(tensorboard), purge_step=step + 1 if step else None)
        if self._rows or metrics.exists():
            self._write()

    def train(self, step: int, *, loss: float, lr: float) -> None:
        """Training loss and learning rate of one step."""
        self._writer.add_scalar("train/loss", loss, step)
        self._writer.add_scalar("train/lr", lr, step)

    def validated(self, row: Row) -> None:
        """The metrics of one validation; `row["step"]` places them."""
        self._rows.append(dict(row))
        self._write()
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"validation/{name}", value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self) -> None:
        # Written whole each time: there are few rows, and a reader or a kill never meets half of one.
        text = io.StringIO()
        if self._rows:
            writer = csv.DictWriter(text, fieldnames=list(self._rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
        write_text(self._metrics, text.getvalue())
