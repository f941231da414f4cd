"""What else went on while it was measured: other processes, a processor that slowed down, noise."""

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROC, CPUS = Path("/proc"), Path("/sys/devices/system/cpu")
THROTTLED = "cpu[0-9]*/thermal_throttle/core_throttle_count"
MOST_DRIFT, MOST_OTHERS, MOST_STOLEN, MOST_NOISE = 0.05, 0.05, 0.01, 0.25
"""Shares above which a measurement is said to be disturbed."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Shares are of 1; None where the system does not tell."""

    drift: float | None  # by how much the last third of the rounds was slower than the first, over all candidates
    noise: float  # by how much p90 exceeds the median, of the middle candidate
    others: float | None  # of the cores' time, what processes that are not ours took
    stolen: float | None  # of the cores' time, what the host of a virtual machine took
    throttled: int | None  # how often a core was slowed down for its heat

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self) | {"warnings": self.warnings()}

    def warnings(self) -> list[str]:
        """What a reader has to know before believing the times; empty where nothing disturbed them."""
        said = []
        if self.throttled:
            said.append(f"Cores were slowed down for their heat {self.throttled} times: cool the machine, or wait.")
        if self.drift is not None and abs(self.drift) > MOST_DRIFT:
            slower = "slower" if self.drift > 0 else "faster"
            said.append(
                f"The last third of the rounds was {abs(self.drift):.0%} {slower} than the first: the clock changed "
                "(heat, power) or other work began or ended. Compare what took turns; times alone do not hold."
            )
        if self.others is not None and self.others > MOST_OTHERS:
            said.append(f"Other processes took {self.others:.0%} of the cores' time: measure on a quiet machine.")
        if self.stolen is not None and self.stolen > MOST_STOLEN:
            said.append(f"The host took {self.stolen:.0%} of this virtual machine's time.")
        if self.noise > MOST_NOISE:
            said.append(f"One call in ten took {self.noise:.0%} longer than the median, or more: times are noisy.")
        return said


class Watch:
    """Reads the system's counters from now on; `pids` are the processes that measure."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = (os.getpid(), *pids)
        self._start = self._read()

    def conditions(self, times_ms: Mapping[str, Sequence[float]], calls: int) -> Conditions:
        """Over the time since the start; `times_ms` are those of each candidate, `calls` to a round."""
        end = self._read()
        passed = {name: end[name] - self._start[name] for name in end if name in self._start}
        total = passed.get("total", 0)
        others = max(0, passed["busy"] - passed["ours"]) / total if total else None
        return Conditions(
            drift=drift(times_ms.values(), calls),
            noise=statistics.median(_noise(times) for times in times_ms.values()),
            others=others,
            stolen=passed["stolen"] / total if total else None,
            throttled=passed.get("throttled"),
        )

    def _read(self) -> dict[str, int]:
        """Ticks of all cores, and how often they were throttled."""
        counters: dict[str, int] = {}
        if (PROC / "stat").exists():
            user, nice, system, idle, waiting, interrupts, soft, stolen, *_ = map(
                int, (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
            )
            busy = user + nice + system + interrupts + soft
            counters = {"total": busy + idle + waiting + stolen, "busy": busy, "stolen": stolen}
            counters["ours"] = sum(map(_ticks, self._pids))
        throttled = [int(file.read_text(encoding="ascii")) for file in CPUS.glob(THROTTLED)]
        return counters | ({"throttled": sum(throttled)} if throttled else {})


def drift(times_ms: Iterable[Sequence[float]], calls: int) -> float | None:
    """By how much the last third of the rounds was slower than the first: each candidate's times relative to its
    median, the median of all in each third. None for fewer than six rounds."""
    first: list[float] = []
    last: list[float] = []
    for times in times_ms:
        third = len(times) // calls // 3 * calls
        if third >= 2 * calls:
            middle = statistics.median(times)
            first.append(statistics.median(times[:third]) / middle)
            last.append(statistics.median(times[-third:]) / middle)
    return statistics.median(last) / statistics.median(first) - 1 if first else None


def _noise(times_ms: Sequence[float]) -> float:
    return sorted(times_ms)[int(0.9 * len(times_ms))] / statistics.median(times_ms) - 1


def _ticks(pid: int) -> int:
    """What a process has used of the cores; of one that has ended, nothing."""
    try:
        fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
