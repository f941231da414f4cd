"""Results of benchmarks made by hand."""

from typing import Any

from hybridvit.machine.facts import machine_card
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.counts import Counts
from hybridvit.measure.latency import Latency
from hybridvit.measure.result import BenchResult, BenchRow
from hybridvit.measure.subject import Subject


def candidate(name: str = "fastvit_t8", **changes: Any) -> Candidate:
    """A candidate of a model by name, in ONNX Runtime."""
    subject = Subject(name=name, kind="ours", family="fastvit", image_size=(256, 256), source=name)
    values: dict[str, Any] = {
        "form": "folded",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "batch": 1,
        "image_size": (256, 256),
        "threads": 2,
        "device": "cpu",
    }
    return Candidate(subject=subject, **values | changes)


def row(times_ms: tuple[float, ...], name: str = "fastvit_t8", **changes: Any) -> BenchRow:
    """A candidate with these times, one call to a turn."""
    return BenchRow(
        candidate=candidate(name, **changes),
        latency=Latency(times_ms=times_ms),
        counts=Counts(parameters=3_992_392, multiply_adds=685_160_448, activations=8_600_000, by_kind={}),
        memory_mib=31.25,
        is_stable=True,
    )


def result(*rows: BenchRow) -> BenchResult:
    """A result of these rows, measured in peace."""
    return BenchResult(
        rows=rows,
        skipped=(),
        settings={
            "protocol": "",
            "rounds": 9,
            "calls_per_turn": 1,
            "processes": 1,
            "threads": 2,
            "threads_pinned_to_cores": True,
        },
        conditions={"warnings": []},
        machine=machine_card(),
    )
