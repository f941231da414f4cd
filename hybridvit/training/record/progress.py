"""What a person sees while training runs: a bar in a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hybridvit.training.record.pace import Pace

LINE_EVERY_SECONDS = 15.0
RECENT = 0.9  # weight of the past in the loss shown
NARROWEST_BAR = 8  # columns


class TrainingProgress:
    """Steps done, loss, images per second and time left, on stderr; silent if not `shown`.

    In a terminal this is one bar that redraws itself and is gone at the end. Elsewhere it is one line every 15
    seconds, without control codes. `pace` is measured in any case.
    """

    def __init__(
        self, *, total_steps: int, steps_per_epoch: int, steps_per_validation: int = 0, shown: bool = True
    ) -> None:
        self.pace = Pace()
        self._total, self._per_epoch = total_steps, steps_per_epoch
        self._per_validation = steps_per_validation or steps_per_epoch
        self._step = 0
        self._console = Console(stderr=True, quiet=not shown)
        self._shown = shown
        self._live: Live | None = None
        self._line = _Line()
        self._loss: float | None = None
        self._validation_seconds: float | None = None
        self._validation_began: float | None = None
        self._last_line = time.monotonic()

    def start_at(self, step: int) -> None:
        """The run goes on from this step; to be called before the bar is entered."""
        self._step = step

    def __enter__(self) -> Self:
        if self._shown and sys.stderr.isatty() and not self._console.is_dumb_terminal:
            # Redirected streams: what a library prints lands above the bar, not in it. Gone at the end: the lines that
            # stay say more than a full bar.
            self._live = Live(self._line, console=self._console, refresh_per_second=4, transient=True)
            self._show_training()
            self._live.start()
        self.pace.pause()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def pause(self) -> None:
        """The time until now was not spent on a step."""
        self.pace.pause()

    def step(self, step: int, *, loss: float, images: int) -> None:
        """One optimizer step is done: `step` in all, over `images` images."""
        self.pace.step(images)
        self._step = step
        self._loss = loss if self._loss is None else RECENT * self._loss + (1 - RECENT) * loss
        self._show_training()
        if self._is_due():
            self.say(
                f"epoch {self._epoch()}  step {step}/{self._total}  loss {self._loss:.3f}  "
                f"{self.pace.images_per_second:.0f} images/s  {self.time_left()} left"
            )

    def validating(self, done: int, total: int) -> None:
        """`done` of `total` batches of a validation are seen."""
        if self._validation_began is None or done <= 1:
            self._validation_began = time.monotonic()
        self._line.set(label="validating", done=done, total=total, pieces=[])
        if self._is_due():
            self.say(f"validating  batch {done}/{total}")

    def validated(self, row: Mapping[str, float], headline: str) -> None:
        """A line per validation. `row` is that of metrics.csv, `headline` the metric to show."""
        if self._validation_began is not None:  # the average's, if there is one, follows the raw weights' at once
            seconds = (time.monotonic() - self._validation_began) * (2 if f"ema_{headline}" in row else 1)
            self._validation_seconds, self._validation_began = seconds, None
        averaged = f" (averaged weights {row[f'ema_{headline}']:.2f})" if f"ema_{headline}" in row else ""
        left = f"  {self.time_left()} left" if self._step < self._total else ""
        self.say(
            f"epoch {row['epoch']:g}  step {row['step']:g}/{self._total}  train loss {row['train_loss']:.3f}  "
            f"{headline} {row[headline]:.2f}{averaged}  {row['images_per_second']:.0f} images/s{left}"
        )
        self.pause()
        self._show_training()

    def say(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def time_left(self) -> str:
        """Of the steps and validations to come, at the speed of this session; "-:--" while it is not known."""
        if not self.pace.seconds_per_step:
            return "-:--"
        validations = -(-self._total // self._per_validation) - self._step // self._per_validation
        seconds = (self._total - self._step) * self.pace.seconds_per_step
        return clock(seconds + max(validations, 0) * (self._validation_seconds or 0.0))

    def _show_training(self) -> None:
        pieces = [f"{self.time_left()} left"]
        if self._loss is not None:
            pieces = [f"loss {self._loss:.3f}", f"{self.pace.images_per_second:.0f} images/s", *pieces]
        self._line.set(label=f"epoch {self._epoch()}", done=self._step, total=self._total, pieces=pieces)

    def _epoch(self) -> str:
        return f"{max(self._step - 1, 0) // self._per_epoch + 1}/{-(-self._total // self._per_epoch)}"

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


Watch = Callable[[int, int], None]
"""Told how many of how many batches of a validation are done."""
