"""How far a job is, and what it came to."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridvit.jobs.notes import Tried
from hybridvit.jobs.unit import Receipt

_MINUTE = 60.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A job at one moment."""

    done: int  # images
    total: int  # that are known of; tar files behind URLs count once they are done
    bad: int
    workers: int  # at work
    per_second: float  # images over the last minute
    per_second_in_all: float  # since this process began

    @property
    def seconds_left(self) -> float | None:
        """None where it cannot be told."""
        return (self.total - self.done) / self.per_second if self.per_second and self.total >= self.done else None

    def __str__(self) -> str:
        left = self.seconds_left
        return (
            f"{self.done:,} of {max(self.total, self.done):,} images, {self.per_second:.1f}/s in the last minute, "
            f"{self.per_second_in_all:.1f}/s in all, {self.workers} workers, {self.bad:,} bad"
            + ("" if left is None else f", {duration(left)} left")
        )


Watch = Callable[[Standing], None]
"""Who watches a job."""


def ignore(standing: Standing) -> None:
    """Watches nothing."""


class Tally:
    """Counts receipts, those of parts that were there before included."""

    def __init__(self, total: int, before: Iterable[Receipt], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self.total = total
        self.rows = self.bad = 0
        self.workers: dict[str, dict[str, Any]] = {}
        self._units: set[int] = set()  # that are done
        self._now = 0  # images that this process has seen done
        self._last = 0  # as of the last standing
        self._history: deque[tuple[float, int]] = deque([(self._began, 0)])
        for receipt in before:
            self._count(receipt)

    def take(self, receipt: Receipt) -> None:
        """One more unit is done."""
        self._count(receipt)
        self._now += receipt.rows

    def _count(self, receipt: Receipt) -> None:
        self._units.add(receipt.unit)
        self.rows += receipt.rows
        self.bad += receipt.bad
        mine = self.workers.setdefault(receipt.worker, {"units": 0, "rows": 0, "seconds": 0.0})
        mine["units"] += 1
        mine["rows"] += receipt.rows
        mine["seconds"] = round(mine["seconds"] + receipt.seconds, 3)

    def standing(self, notes: Mapping[str, Tried]) -> Standing:
        """With what the notes say of units that are at work; the count does not go back when one is begun again.

        Notes are older than receipts: those on a unit that is done by now count for nothing.
        """
        now = self._clock()
        at_work = sum(note.done for note in notes.values() if note.unit not in self._units)
        self._last = max(self._last, self._now + at_work)
        self._history.append((now, self._last))
        while now - self._history[0][0] > _MINUTE and len(self._history) > 1:
            self._history.popleft()
        then, count = self._history[0]
        return Standing(
            done=self.rows - self._now + self._last,
            total=self.total,
            bad=self.bad,
            workers=len({note.worker for note in notes.values()}),
            per_second=(self._last - count) / max(now - then, 1e-9),
            per_second_in_all=self._last / max(now - self._began, 1e-9),
        )

    def summary(self) -> dict[str, Any]:
        """What stays of it."""
        seconds = self._clock() - self._began
        return {
            "rows": self.rows,
            "bad": self.bad,
            "seconds": round(seconds, 3),  # of the last start; with "rows_now" of these
            "rows_now": self._now,
            "images_per_second": round(self._now / max(seconds, 1e-9), 2),
            "workers": self.workers,
        }


def duration(seconds: float) -> str:
    """Seconds as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
