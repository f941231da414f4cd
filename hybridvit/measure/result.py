"""What a benchmark found: one record per candidate, as a table, CSV and one line of JSON; and read again."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit.errors import UsageError
from hybridvit.machine.facts import MachineCard
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.latency import Latency

if TYPE_CHECKING:
    from hybridvit.measure.counts import Counts

FORMAT = 1
TIMM_COLUMNS = (  # as in timm's tables of results, so that they can be joined
    "model", "infer_img_size", "infer_samples_per_sec", "infer_step_time", "infer_batch_size", "param_count",
    "infer_gmacs", "infer_macts",
)  # fmt: skip
COLUMNS = (
    "model", "family", "form", "runtime", "precision", "device", "batch", "image_size", "threads", "median_ms",
    "low_ms", "high_ms", "p90_ms", "p99_ms", "images_per_s", "rounds", "calls", "memory_mib", "parameters",
    "multiply_adds", "activations", "top1", "top1_of", "top1_source", "processes", "process_spread", "faults_per_call",
)  # fmt: skip
LATER = ("processes", "process_spread", "faults_per_call")
"""Columns that results of earlier versions lack."""
KEY = ("model", "form", "runtime", "precision", "device", "batch", "image_size", "threads")
"""What makes two records be of the same candidate."""


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One candidate and its times."""

    candidate: Candidate
    latency: Latency
    counts: "Counts | None"  # of the folded model in fp32; None where it cannot be counted
    memory_mib: float | None
    is_stable: bool  # whether its time was stable when the clock started
    faults_per_call: float | None = None  # page faults, in the process that has most; None where they are not counted
    lacks: str = ""  # why it has fewer processes than were asked for

    def record(self) -> dict[str, Any]:
        """Of plain types, with the keys of COLUMNS and `turns_ms`; times per batch in milliseconds.

        `turns_ms` has one list for each process, with the median of each of its turns in order.
        """
        of, times, (low, high) = self.candidate, self.latency, self.latency.interval_ms
        return of.record() | {
            "median_ms": round(times.median_ms, 4),
            "low_ms": round(low, 4),
            "high_ms": round(high, 4),
            "p90_ms": round(times.p90_ms, 4),
            "p99_ms": round(times.p99_ms, 4),
            "images_per_s": round(of.batch * 1e3 / times.median_ms, 2),
            "rounds": len(times.turns_ms),
            "calls": len(times.times_ms),
            "memory_mib": None if self.memory_mib is None else round(self.memory_mib, 1),
            **without_clock(of, self.counts),
            "processes": len(times.process_medians_ms),
            "process_spread": round(times.process_spread, 4),
            "faults_per_call": None if self.faults_per_call is None else round(self.faults_per_call, 1),
            "turns_ms": [[round(turn, 4) for turn in turns] for turns in times.turns_by_process_ms],
        }


def without_clock(candidate: Candidate, counts: "Counts | None") -> dict[str, Any]:
    """The columns that nothing is measured for: what was counted, and the published accuracy of these weights."""
    from hybridvit.peers import published_accuracy

    height, width = candidate.image_size
    is_published = candidate.precision != "int8" and height == width
    published = published_accuracy(candidate.subject.name, height) if is_published else None
    return {
        "parameters": counts and counts.parameters,
        "multiply_adds": counts and counts.multiply_adds,
        "activations": counts and counts.activations,
        "top1": published and published.top1,
        "top1_of": published.training if published else "",
        "top1_source": published.source if published else "",
    }


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A candidate that was not measured, and why."""

    candidate: Candidate
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        told = ("model", "runtime", "precision", "batch", "image_size")
        return {name: self.candidate.record()[name] for name in told} | {"reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """All rows of one run, what was left out, and what it was measured with."""

    rows: tuple[BenchRow, ...]
    skipped: tuple[Skipped, ...]
    settings: Mapping[str, Any]
    conditions: Mapping[str, Any]  # of Conditions
    machine: MachineCard
    notes: tuple[str, ...] = ()  # what to know of single rows before believing their times
    is_complete: bool = True  # whether it was not interrupted

    def warnings(self) -> list[str]:
        """All that a reader has to know before believing the times: of the conditions, then of single rows."""
        return [*self.conditions.get("warnings", ()), *self.notes]

    def records(self) -> list[dict[str, Any]]:
        """One record per row, with the keys of COLUMNS and `turns_ms`."""
        return [row.record() for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return {
            "format": FORMAT,
            "bench": self.records(),
            "skipped": [each.to_dict() for each in self.skipped],
            "settings": dict(self.settings),
            "conditions": dict(self.conditions),
            "notes": list(self.notes),
            "machine": self.machine.to_dict(),
            "complete": self.is_complete,
        }

    def json(self) -> str:
        """Everything, on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def csv(self) -> str:
        """The records as CSV: timm's columns first, then ours."""
        return as_csv(self.records())


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV: timm's columns first, then ours."""
    text = io.StringIO()
    columns = (*TIMM_COLUMNS, *(name for name in COLUMNS if name not in TIMM_COLUMNS))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**record, **_as_timm(record)} for record in records)
    return text.getvalue()


def read_result(path: str | Path) -> dict[str, Any]:
    """The result that `hybridvit bench --json` wrote, or the page in a browser; of an earlier version it lacks LATER.

    Raises UsageError for any other file.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(result, dict) or result.get("format") != FORMAT or not isinstance(result["bench"], list):
            raise ValueError(f"its format is not {FORMAT}")
        for record in result["bench"]:
            if missing := [name for name in COLUMNS if name not in record and name not in LATER]:
                raise ValueError(f"a record has no {', '.join(missing)}")
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}. Write one with `hybridvit bench MODEL... --json {path}`.") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(
            f"{path} is no result of a benchmark ({error}). Write one with `hybridvit bench MODEL... --json FILE`."
        ) from error
    return result


def key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two records be of the same candidate."""
    return tuple(record[name] for name in KEY)


def of_one_load(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The records of each image size and batch, small ones first, the fastest first in each.

    Times are compared within one of these alone: another size or batch is another amount of work.
    """
    groups: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        height, width = map(int, record["image_size"].split("x"))
        groups.setdefault((height * width, height, record["batch"]), []).append(record)
    return [sorted(groups[load], key=lambda record: record["median_ms"]) for load in sorted(groups)]


def _as_timm(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values of TIMM_COLUMNS: sizes as one side where square, counts in millions, multiply-adds in billions."""
    height, width = record["image_size"].split("x")

    def in_units(name: str, unit: float) -> float | None:
        return None if record[name] is None else round(record[name] / unit, 2)

    return {
        "infer_img_size": height if height == width else record["image_size"],
        "infer_samples_per_sec": record["images_per_s"],
        "infer_step_time": round(record["median_ms"], 3),
        "infer_batch_size": record["batch"],
        "param_count": in_units("parameters", 1e6),
        "infer_gmacs": in_units("multiply_adds", 1e9),
        "infer_macts": in_units("activations", 1e6),
    }
