"""What a person sees while training runs: a bar in a terminal, plain lines in a log."""

import sys
import time

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hybridvit.quantity import Quantity
from hybridvit.training.observe import Beginning, Observer, Row, Step

LINE_EVERY_SECONDS = 15.0
RECENT = 0.9  # weight of the past in the loss shown
NARROWEST_BAR = 8  # columns


class TrainingProgress(Observer):
    """Steps done, loss, images per second and time left, on stderr; silent if not `shown`.

    In a terminal this is one bar that redraws itself and is gone at the end. Elsewhere it is one line every 15
    seconds, without control codes.
    """

    def __init__(self, headline: Quantity, *, shown: bool = True) -> None:
        self._headline, self._shown = headline, shown
        self._beginning = Beginning(
            step=0, total_steps=1, steps_per_epoch=1, steps_per_validation=1, history=(), seconds=0.0
        )
        self._step = 0
        self._last: Step | None = None
        self._console = Console(stderr=True, quiet=not shown)
        self._live: Live | None = None
        self._line = _Line()
        self._loss: float | None = None
        self._validation_seconds: float | None = None
        self._validation_began: float | None = None
        self._last_line = time.monotonic()

    def begun(self, beginning: Beginning) -> None:
        self._beginning, self._step = beginning, beginning.step
        if self._shown and sys.stderr.isatty() and not self._console.is_dumb_terminal:
            # Redirected streams: what a library prints lands above the bar, not in it. Gone at the end: the lines that
            # stay say more than a full bar.
            self._live = Live(self._line, console=self._console, refresh_per_second=4, transient=True)
            self._show_training()
            self._live.start()

    def ended(self, error: BaseException | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stepped(self, step: Step) -> None:
        self._last, self._step = step, step.step
        self._loss = step.loss if self._loss is None else RECENT * self._loss + (1 - RECENT) * step.loss
        self._show_training()
        if self._is_due():
            self.said(
                f"epoch {self._epoch()}  step {step.step}/{self._beginning.total_steps}  loss {self._loss:.3f}  "
                f"{step.images_per_second:.0f} images/s  {self.time_left()} left"
            )

    def validating(self, done: int, total: int) -> None:
        if self._validation_began is None or done <= 1:
            self._validation_began = time.monotonic()
        self._line.set(label="validating", done=done, total=total, pieces=[])
        if self._is_due():
            self.said(f"validating  batch {done}/{total}")

    def validated(self, row: Row) -> None:
        name = self._headline.name
        if self._validation_began is not None:  # the average's, if there is one, follows the raw weights' at once
            seconds = (time.monotonic() - self._validation_began) * (2 if f"ema_{name}" in row else 1)
            self._validation_seconds, self._validation_began = seconds, None
        averaged = f" (averaged weights {self._headline.number(row[f'ema_{name}'])})" if f"ema_{name}" in row else ""
        left = f"  {self.time_left()} left" if self._step < self._beginning.total_steps else ""
        self.said(
            f"epoch {row['epoch']:g}  step {row['step']:g}/{self._beginning.total_steps}  "
            f"train loss {row['train_loss']:.3f}  {name} {self._headline.text(row[name])}{averaged}  "
            f"{row['images_per_second']:.0f} images/s{left}"
        )
        self._show_training()

    def said(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def time_left(self) -> str:
        """Of the steps and validations to come, at the speed of this session; "-:--" while it is not known."""
        if self._last is None:
            return "-:--"
        of = self._beginning
        validations = -(-of.total_steps // of.steps_per_validation) - self._step // of.steps_per_validation
        seconds = (of.total_steps - self._step) * self._last.seconds_per_step
        return clock(seconds + max(validations, 0) * (self._validation_seconds or 0.0))

    def _show_training(self) -> None:
        pieces = [f"{self.time_left()} left"]
        if self._loss is not None and self._last is not None:
            pieces = [f"loss {self._loss:.3f}", f"{self._last.images_per_second:.0f} images/s", *pieces]
        self._line.set(
            label=f"epoch {self._epoch()}", done=self._step, total=self._beginning.total_steps, pieces=pieces
        )

    def _epoch(self) -> str:
        per_epoch = self._beginning.steps_per_epoch
        return f"{max(self._step - 1, 0) // per_epoch + 1}/{-(-self._beginning.total_steps // per_epoch)}"

    def _is_due(self) -> bool:
        return self._live is None and time.monotonic() - self._last_line >= LINE_EVERY_SECONDS


class _Line:
    """A label, a bar, a count and some pieces of text, on one line of any width: what does not fit is left out."""

    def __init__(self) -> None:
        self.set(label="", done=0, total=1, pieces=[])

    def set(self, *, label: str, done: int, total: int, pieces: list[str]) -> None:
        self._shown = (label, done, total, pieces)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        label, done, total, pieces = self._shown
        texts = [label, f"{done}/{total}", *pieces]
        while len(texts) > 1 and sum(len(text) + 2 for text in texts) + NARROWEST_BAR > options.max_width:
            texts.pop(2 if len(texts) > 3 else len(texts) - 1)  # the time left stays longest
        bar = ProgressBar(total=max(total, 1), completed=done)
        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False, expand=True)
        cells: list[Text | ProgressBar] = [Text(text, no_wrap=True, overflow="ellipsis") for text in texts]
        cells.insert(1, bar)
        for cell in cells:
            grid.add_column(ratio=1 if cell is bar else None, no_wrap=True)
        grid.add_row(*cells)
        yield grid


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
