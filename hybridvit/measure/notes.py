"""What to know of single rows before believing their times; conditions.py has what was so for all of them."""

import statistics
from collections.abc import Iterator, Sequence

from hybridvit.measure.latency import Latency, median_interval
from hybridvit.measure.result import BenchRow

MOST_FAULTS, MOST_SPREAD = 50, 0.05
"""Page faults of a call, and the share by which the slowest process exceeds the fastest, above which it is said."""


def notes_on(rows: Sequence[BenchRow], *, processes: int) -> Iterator[str]:
    """One sentence for each thing that is to be said, naming the rows it is true of; `processes` were asked for."""
    if unstable := [row for row in rows if not row.is_stable]:
        yield f"After 10 seconds of warm-up the time was not stable yet: {_labels(unstable)}."
    if faulting := [row for row in rows if (row.faults_per_call or 0) > MOST_FAULTS]:
        named = "; ".join(f"{row.faults_per_call:,.0f} a call in {row.candidate.label}" for row in faulting)
        yield (
            f"Page faults slow it down: {named}. What a call frees goes back to the system, which clears every page "
            "anew for the next. glibc always does that with arrays of more than 32 MiB: use a smaller batch or image "
            "size, or an allocator that does not (jemalloc, by LD_PRELOAD)."
        )
    if unlike := [row for row in rows if _processes_differ(row.latency)]:
        named = "; ".join(_spread(row) for row in unlike)
        yield (
            f"Processes of the same candidate differ: {named}. The interval reaches over them; more --processes say "
            "more of the next one."
        )
    if short := [row for row in rows if row.lacks]:
        yield (
            f"Not all {processes} processes could be had, so that the interval knows less: {_labels(short)}. "
            f"Of the first: {short[0].lacks}"
        )


def _processes_differ(latency: Latency) -> bool:
    """By more than MOST_SPREAD, and by more than the turns of the fastest and of the slowest explain."""
    ordered = sorted(latency.turns_by_process_ms, key=statistics.median)
    (_, fastest_high), (slowest_low, _) = median_interval(ordered[0]), median_interval(ordered[-1])
    return latency.process_spread > MOST_SPREAD and slowest_low > fastest_high


def _labels(rows: Sequence[BenchRow]) -> str:
    return "; ".join(row.candidate.label for row in rows)


def _spread(row: BenchRow) -> str:
    medians = row.latency.process_medians_ms
    return f"{row.candidate.label} by {row.latency.process_spread:.0%} ({min(medians):.2f} to {max(medians):.2f} ms)"
