"""Time several candidates against each other so that a machine that drifts misleads about none of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hybridvit.errors import UsageError

MIN_ROUNDS = 8  # below this the interval of the median is the whole range and says nothing


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The times of one candidate, in milliseconds per call."""

    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Half of the calls were faster."""
        return statistics.median(self.times_ms)

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
        """A 95 % confidence interval of the median, from order statistics: no distribution is assumed."""
        return median_interval(self.times_ms)


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


def check_rounds(rounds: int, warmup: int) -> None:
    """Raise UsageError for numbers of calls that `measure` does not take."""
    if rounds < MIN_ROUNDS or warmup < 0:
        raise UsageError(
            f"rounds={rounds}, warmup={warmup}: a median with an interval needs at least {MIN_ROUNDS} rounds, and "
            f"warm-up cannot be negative. Use --rounds {max(rounds, MIN_ROUNDS)}."
        )


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    wait: Callable[[], None] = lambda: None,
    rounds: int = 100,
    warmup: int = 10,
    budget_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda _: None,
) -> dict[str, Latency]:
    """Call every candidate once per round, `rounds` times, and return its times.

    Rounds are interleaved, and every other one runs backwards: a slow minute, a hot processor or the cache that
    the neighbour left hit all candidates alike. `wait()` must block until the device is idle
    (`torch.cuda.synchronize`). With `budget_s`, measuring ends early once that many seconds are spent,
    but never before MIN_ROUNDS rounds. Raises UsageError for no candidates or too few rounds.
    """
    if not candidates:
        raise UsageError("There is nothing to measure: the list of candidates is empty. Name at least one model.")
    check_rounds(rounds, warmup)
    for run in candidates.values():
        for _ in range(warmup):
            run()
    times_ms: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    began = clock()
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            wait()
            start = clock()
            candidates[name]()
            wait()
            times_ms[name].append((clock() - start) * 1e3)
        on_round(index + 1)
        if budget_s is not None and index + 1 >= MIN_ROUNDS and clock() - began > budget_s:
            break
    return {name: Latency(times_ms=tuple(times)) for name, times in times_ms.items()}
