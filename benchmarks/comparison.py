"""What all benchmarks share: interleaved timing of candidates, ratios against the first, one JSON line at the end."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hybridvit.machine.facts import machine_card
from hybridvit.measure.latency import Latency, measure, median_interval


def compare(
    title: str,
    candidates: Mapping[str, Callable[[], object]],
    *,
    device: str = "cpu",
    rounds: int = 30,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, object]:
    """Time the candidates in one run; print a table with each one's speed relative to the first, and return it."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    latencies = measure(candidates, wait=wait, rounds=rounds, warmup=warmup, clock=clock)
    reference = next(iter(latencies.values()))
    rows = {name: _row(latency, reference) for name, latency in latencies.items()}
    width = max(map(len, rows))
    print(f"\n{title} (median of {rounds} interleaved rounds)")
    for name, row in rows.items():
        between = f"({row['low_ms']:.2f} to {row['high_ms']:.2f})"
        speeds = f"({row['speed_low']:.2f} to {row['speed_high']:.2f})"
        print(f"  {name:<{width}}  {row['median_ms']:9.2f} ms {between:>18}  speed x{row['speed']:.2f} {speeds}")
    return {"title": title, "rows": rows}


def report(benchmark: str, results: object, *, output: Path | None = None) -> None:
    """Print everything, with the machine and the commit, as one JSON line; write it to `output` too, if given."""
    record = {"benchmark": benchmark, "commit": commit(), "machine": machine_card().to_dict(), "results": results}
    print(json.dumps(record))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(record, indent=1) + "\n")


def _row(latency: Latency, reference: Latency) -> dict[str, float]:
    """The speed and its 95 % interval are those of the median over rounds, in each of which both took a turn."""
    speeds = tuple(theirs / own for theirs, own in zip(reference.turns_ms, latency.turns_ms, strict=True))
    low, high = median_interval(speeds)
    return {
        "median_ms": round(latency.median_ms, 3),
        "low_ms": round(latency.interval_ms[0], 3),  # 95 % interval of the median
        "high_ms": round(latency.interval_ms[1], 3),
        "p90_ms": round(latency.p90_ms, 3),
        "speed": round(statistics.median(speeds), 3),
        "speed_low": round(low, 3),
        "speed_high": round(high, 3),
    }


def commit() -> str:
    """The commit that is checked out, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
