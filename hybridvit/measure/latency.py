"""Time several candidates against each other so that a machine that drifts misleads about none of them."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hybridvit.errors import UsageError

MIN_ROUNDS = 8  # below this the interval of the median is the whole range and says nothing
WINDOW, STABLE, WARMUP_SECONDS = 5, 0.03, 10.0  # of the warm-up: calls per window, difference of two, longest


Turn = Callable[[int], Sequence[float]]
"""What a candidate does when it is its turn: so many calls, and the time of each in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a turn in another process found."""

    times_ms: Sequence[float]  # of each call
    faults: int | None  # page faults during these calls, None where they are not counted


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The times of one candidate, in milliseconds per call, in order; so many calls in a row were one turn.

    Calls of one turn are alike, so a turn counts once, by its median, for the median and its interval.
    """

    times_ms: tuple[float, ...]
    calls_per_turn: int = 1
    processes: tuple[int, ...] = ()  # the number of the process that each turn was of; empty: all of one

    @cached_property
    def turns_ms(self) -> tuple[float, ...]:
        """The median of each turn."""
        starts = range(0, len(self.times_ms), self.calls_per_turn)
        return tuple(statistics.median(self.times_ms[start : start + self.calls_per_turn]) for start in starts)

    @cached_property
    def turns_by_process_ms(self) -> tuple[tuple[float, ...], ...]:
        """The median of each turn, those of one process together."""
        by_process: dict[int, list[float]] = {}
        turns = self.turns_ms
        for number, turn in zip(self.processes or (0,) * len(turns), turns, strict=True):
            by_process.setdefault(number, []).append(turn)
        return tuple(tuple(by_process[number]) for number in sorted(by_process))

    @property
    def process_medians_ms(self) -> tuple[float, ...]:
        """The median over the turns of each process."""
        return tuple(map(statistics.median, self.turns_by_process_ms))

    @property
    def process_spread(self) -> float:
        """By how much the slowest process exceeds the fastest, as a share: 0.05 is 5 %; 0 for one process."""
        return max(self.process_medians_ms) / min(self.process_medians_ms) - 1

    @property
    def median_ms(self) -> float:
        """Half of the turns were faster."""
        return statistics.median(self.turns_ms)

    @property
    def p90_ms(self) -> float:
        """Nine of ten calls were at least as fast (nearest rank)."""
        return quantile(self.times_ms, 0.90)

    @property
    def p99_ms(self) -> float:
        """99 of 100 calls were at least as fast (nearest rank)."""
        return quantile(self.times_ms, 0.99)

    @property
    def interval_ms(self) -> tuple[float, float]:
        """A 95 % confidence interval of the median, from order statistics: no distribution is assumed.

        However many turns one process takes, they say nothing of what differs between processes: where its memory
        lies, what its allocator gives back. So with several, a process counts once, as a turn does, and the interval
        reaches over that of the processes' medians too. Of up to five this is from the fastest to the slowest: the
        median of all processes there could be lies outside only if all of these lie on one side of it, which chance
        does once in 16 times for five, and once in 4 for three. That is the worst case, of processes that differ much
        more than turns do.
        """
        over_turns = median_interval(self.turns_ms)
        over_processes = median_interval(self.process_medians_ms)
        return min(over_turns[0], over_processes[0]), max(over_turns[1], over_processes[1])


def quantile(values: tuple[float, ...], fraction: float) -> float:
    """The nearest-rank quantile: the smallest value that at least `fraction` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def median_interval(values: tuple[float, ...], z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of the median: the order statistics at n/2 -+ z*sqrt(n)/2 (binomial, normal approximation)."""
    ordered = sorted(values)
    count = len(ordered)
    half_width = z * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - half_width))
    high = min(count - 1, math.ceil(count / 2 + half_width))
    return ordered[low], ordered[high]


def check_rounds(rounds: int) -> None:
    """Raise UsageError for fewer rounds than an interval needs."""
    if rounds < MIN_ROUNDS:
        raise UsageError(
            f"rounds={rounds}: a median with an interval needs at least {MIN_ROUNDS} rounds. Use --rounds {MIN_ROUNDS}."
        )


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    wait: Callable[[], None] = lambda: None,
    rounds: int = 100,
    warmup: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Call every candidate of this process once per round, `rounds` times, and return its times.

    `wait()` must block until the device is idle (`torch.cuda.synchronize`). Raises UsageError for no candidates or too
    few rounds.
    """
    check_rounds(rounds)
    for run in candidates.values():
        for _ in range(warmup):
            run()
    turns = {name: timed(run, wait=wait, clock=clock) for name, run in candidates.items()}
    times: dict[str, list[float]] = {}
    for so_far in take_turns(turns, rounds=rounds, clock=clock):
        times = so_far
    return {name: Latency(times_ms=tuple(values)) for name, values in times.items()}


def timed(
    run: Callable[[], object],
    *,
    wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Turn:
    """A turn that times `run()` and the wait for the device after it."""

    def turn(calls: int) -> list[float]:
        times_ms = []
        for _ in range(calls):
            wait()
            start = clock()
            run()
            wait()
            times_ms.append((clock() - start) * 1e3)
        return times_ms

    return turn


def take_turns(
    candidates: Mapping[str, Turn],
    *,
    rounds: int,
    calls: int = 1,
    budget_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, list[float]]]:
    """Give every candidate one turn of `calls` calls per round, and yield all times (ms) so far after each round.

    Rounds are interleaved, and every other one runs backwards: a slow minute, a hot processor or the cache that the
    neighbour left hit all candidates alike. With `budget_s`, measuring ends early once that many seconds are spent, but
    never before MIN_ROUNDS rounds. Raises UsageError for no candidates.
    """
    if not candidates:
        raise UsageError("There is nothing to measure: the list of candidates is empty. Name at least one model.")
    times_ms: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    began = clock()
    for index in range(rounds):
        of_round = {name: candidates[name](calls) for name in (names if index % 2 == 0 else reversed(names))}
        for name, times in of_round.items():
            times_ms[name].extend(times)
        yield times_ms
        if budget_s is not None and index + 1 >= MIN_ROUNDS and clock() - began > budget_s:
            break


def warm_up(turn: Turn, *, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Call until two windows of calls in a row take the same time to 3 %, or for 10 seconds; whether they did."""
    began, last = clock(), math.nan
    turn(1)
    while clock() - began < WARMUP_SECONDS:
        median = statistics.median(turn(WINDOW))
        if abs(median - last) <= STABLE * last:
            return True
        last = median
    return False
