"""How fast a run is, and what it waits for. Only for reading: nothing is computed from it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

SLOW_LOADER = 0.3  # the share of waiting that is worth a word
FEWEST_STEPS = 20  # before it is judged
FEWEST_SECONDS = 20.0
RECENT = 0.9  # weight of the past in the speed shown

T = TypeVar("T")


@dataclass(frozen=True)
class Lap:
    """A stretch of training; validation and saving are not counted."""

    images: int = 0
    seconds: float = 0.0  # of steps
    waited: float = 0.0  # seconds of these that went into waiting for images

    @property
    def images_per_second(self) -> float:
        """0 without a step."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def data_wait(self) -> float:
        """The share of waiting."""
        return self.waited / self.seconds if self.seconds else 0.0

    def after(self, earlier: "Lap") -> "Lap":
        """What came after `earlier`, with which this one begins."""
        return Lap(self.images - earlier.images, self.seconds - earlier.seconds, self.waited - earlier.waited)


class Pace:
    """Measures the steps of one process, from `timed` (around the loader) and `step` (after each step)."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = self._last = now()
        self._steps = 0
        self._told = False
        self._whole = self._first = Lap()
        self._waited = 0.0  # in the step that goes on
        self._laps: dict[str, Lap] = {}  # what each of them began after
        self._recent = 0.0
        self._images = 0  # of the last step

    @property
    def session_seconds(self) -> float:
        """Since this process began to train, everything counted."""
        return self._now() - self._began

    @property
    def seconds_per_step(self) -> float:
        """Recently; 0 before the first step."""
        return self._recent

    @property
    def images_per_second(self) -> float:
        """Recently; 0 before the first step."""
        return self._images / self._recent if self._recent else 0.0

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time that each takes to come counts as waiting."""
        while True:
            began = self._now()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += self._now() - began
            yield batch

    def step(self, images: int) -> None:
        """A step over `images` images is done."""
        seconds = max(self._now() - self._last, 1e-9)
        whole = self._whole
        self._whole = Lap(whole.images + images, whole.seconds + seconds, whole.waited + min(self._waited, seconds))
        if self._steps == 0:  # workers start, kernels are chosen: no word about what follows
            self._first = self._whole
        self._recent = RECENT * self._recent + (1 - RECENT) * seconds if self._steps > 1 else seconds
        self._images = images
        self._steps += 1
        self.pause()

    def pause(self) -> None:
        """The time until now was not spent on a step."""
        self._waited = 0.0
        self._last = self._now()

    def lap(self, name: str) -> Lap:
        """The stretch since the last lap of that name."""
        before, self._laps[name] = self._laps.get(name, Lap()), self._whole
        return self._whole.after(before)

    @property
    def data_wait(self) -> float:
        """The share of waiting in all steps but the first."""
        return self._whole.after(self._first).data_wait

    def slow_loader(self) -> float | None:
        """That share where it is too large, and measured for long enough; told once, else None."""
        judged = self._whole.after(self._first)
        measured = self._steps >= FEWEST_STEPS and judged.seconds >= FEWEST_SECONDS
        if self._told or not measured or self.data_wait <= SLOW_LOADER:
            return None
        self._told = True
        return self.data_wait
