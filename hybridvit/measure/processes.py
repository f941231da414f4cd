"""The processes of one candidate, which take its turns one after the other.

What one process is given by chance for all its life (where its memory lies, what its allocator gives back) shows only
beside another of the same candidate.
"""

import statistics
from collections.abc import Sequence

from hybridvit.errors import HybridViTError
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.counts import Counts
from hybridvit.measure.latency import Latency, Timed
from hybridvit.measure.result import BenchRow
from hybridvit.measure.worker import Worker


class Processes:
    """One at first; `lacks` says why there are fewer than were asked for, "" if there are not."""

    def __init__(self, first: Worker) -> None:
        self.candidate: Candidate = first.candidate
        self.lacks = ""
        self._opened = [first]
        self._alive = [0]  # numbers of those that can take a turn, the next one first
        self._turns: list[tuple[int, Timed]] = []  # with the number of its process

    def add(self, worker: Worker) -> None:
        """One more process of the same candidate."""
        self._alive.append(len(self._opened))
        self._opened.append(worker)

    @property
    def pids(self) -> list[int]:
        """Those of the system."""
        return [worker.pid for worker in self._opened]

    @property
    def is_pinned(self) -> bool:
        """Whether the threads of all are bound to cores."""
        return all(worker.is_pinned for worker in self._opened)

    @property
    def memory_mib(self) -> float | None:
        """What the largest takes; None where the system does not tell."""
        return max((each.memory_mib for each in self._opened if each.memory_mib is not None), default=None)

    def turn(self, calls: int) -> Sequence[float]:
        """The times (ms) of so many calls of the next process.

        One that dies leaves its turns to the others. Raises OutOfMemory or ProcessLost if it was the last.
        """
        while True:
            number = self._alive.pop(0)
            try:
                timed = self._opened[number].turn(calls)
            except HybridViTError as death:
                if not self._alive:
                    raise
                self.lacks = str(death)
                continue
            self._alive.append(number)
            self._turns.append((number, timed))
            return timed.times_ms

    def row(self, times_ms: Sequence[float], calls: int, counts: Counts | None) -> BenchRow:
        """What is known after the turns that `times_ms` are of, `calls` of them to a turn."""
        turns = self._turns[: len(times_ms) // calls]  # a round that was interrupted is left out
        return BenchRow(
            candidate=self.candidate,
            latency=Latency(
                times_ms=tuple(times_ms), calls_per_turn=calls, processes=tuple(number for number, _ in turns)
            ),
            counts=counts,
            memory_mib=self.memory_mib,
            is_stable=all(worker.is_stable for worker in self._opened),
            faults_per_call=_faults_per_call(turns, calls),
            lacks=self.lacks,
        )


def _faults_per_call(turns: Sequence[tuple[int, Timed]], calls: int) -> float | None:
    """The median over the turns of the process that has most; None where they are not counted."""
    by_process: dict[int, list[float]] = {}
    for number, timed in turns:
        if timed.faults is not None:
            by_process.setdefault(number, []).append(timed.faults / calls)
    return max(map(statistics.median, by_process.values()), default=None)
