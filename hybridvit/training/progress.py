"""What a person sees while training runs: a bar in a terminal, plain lines in a log."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 15.0
RECENT = 0.9  # weight of the past in the loss and speed shown; only for reading, nothing is computed from them


class TrainingProgress:
    """Steps done, loss, images per second and time left, on stderr; silent if not `shown`.

    In a terminal this is one bar that redraws itself. Elsewhere it is one line every 15 seconds.
    """

    def __init__(self, *, total_steps: int, steps_per_epoch: int, shown: bool = True) -> None:
        self._total, self._per_epoch = total_steps, steps_per_epoch
        self._first = 0
        self._console = Console(stderr=True, quiet=not shown)
        self._shown = shown
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss: float | None = None
        self._speed: float | None = None
        self._began = self._last_step = self._last_line = time.monotonic()

    def start_at(self, step: int) -> None:
        """The run goes on from this step; to be called before the bar is entered."""
        self._first = step

    def __enter__(self) -> Self:
        if self._shown and sys.stderr.isatty():
            columns = (
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[speed]} images/s"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(
                "train", total=self._total, completed=self._first, epoch="1", loss="-", speed="-"
            )
            self._bar.start()
        self._last_step = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def images_per_second(self) -> float:
        """Recent speed, validation and saving not counted; 0 before the first step."""
        return self._speed or 0.0

    def pause(self) -> None:
        """The time until now was not spent on a step."""
        self._last_step = time.monotonic()

    def step(self, step: int, *, loss: float, images: int) -> None:
        """One optimizer step is done: `step` in all, over `images` images."""
        now = time.monotonic()
        speed = images / max(now - self._last_step, 1e-9)
        self._last_step = now
        self._loss = loss if self._loss is None else RECENT * self._loss + (1 - RECENT) * loss
        self._speed = speed if self._speed is None else RECENT * self._speed + (1 - RECENT) * speed
        epoch = f"{(step - 1) // self._per_epoch + 1}/{-(-self._total // self._per_epoch)}"
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, epoch=epoch, loss=f"{self._loss:.3f}", speed=f"{self._speed:.0f}"
            )
        elif self._shown and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            left_seconds = (now - self._began) / max(step - self._first, 1) * (self._total - step)
            self.say(
                f"epoch {epoch}  step {step}/{self._total}  loss {self._loss:.3f}  {self._speed:.0f} images/s  "
                f"{_clock(left_seconds)} left"
            )

    def say(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
