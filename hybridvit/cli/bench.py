"""`hybridvit bench`: how fast is it here?"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hybridvit.atomic import check_place, write_text
from hybridvit.cli.size import parse_size
from hybridvit.cli.table import aligned, pairs

if TYPE_CHECKING:
    from hybridvit.measure.bench import BenchResult


def bench(
    models: list[str],
    *,
    runtimes: list[str] | None = None,
    forms: list[str] | None = None,
    batch: int = 1,
    image_size: str | None = None,
    threads: int | None = None,
    rounds: int = 100,
    warmup: int = 10,
    seconds: float | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    csv: str | None = None,
    json: str | None = None,
) -> None:
    """Time models against each other on this machine.

    All candidates take turns, one call each per round, so that a machine that slows down misleads about none of them;
    the device is waited for. Medians come with a 95 % interval: where two intervals overlap, neither is faster. In
    eval mode an unfolded model already computes on kernels it folds for itself, so the two forms can be close.
    ONNX Runtime gets the folded model, on the CPU. fp32. Idle threads sleep rather than spin, so that neither runtime
    takes time from the other (OMP_WAIT_POLICY=ACTIVE lets PyTorch's spin). The last line is one JSON object with
    everything.

    Examples:
      hybridvit bench fastvit_t8
      hybridvit bench fastvit_t8 fastvit_sa12 --batch 8 --threads 2 --csv latency.csv
      hybridvit bench runs/digits/model.safetensors --runtimes onnxruntime | tail -1

    Args:
        models: names from `hybridvit list` (random weights: they do not change the time) or checkpoints.
        runtimes: torch, onnxruntime; both by default.
        forms: training, folded; both by default.
        batch: images per call; times are per call.
        image_size: height x width in pixels: 256, or 192x320; by default the first model's own.
        threads: CPU threads of both runtimes; by default all cores that this process may use.
        rounds: calls of each candidate, at least 8.
        warmup: calls before the clock starts.
        seconds: stop after this time, but not before 8 rounds.
        device: cpu or cuda, for PyTorch.
        csv: file for the table with all columns.
        json: file for the JSON line.
    """
    for output in (csv, json):
        if output is not None:
            check_place(Path(output))
    from hybridvit.measure.bench import FORMS, RUNTIMES
    from hybridvit.measure.bench import bench as run_bench

    result = run_bench(
        models,
        runtimes=runtimes or RUNTIMES,
        forms=forms or FORMS,
        batch=batch,
        image_size=parse_size(image_size),
        threads=threads,
        device=device,
        rounds=rounds,
        warmup=warmup,
        budget_s=seconds,
        on_round=_progress(rounds),
    )
    print(table(result))
    print()
    print(pairs(result.machine.lines()))
    print(
        f"  batch {result.batch}, {result.image_size[0]}x{result.image_size[1]} px, {result.threads} threads, "
        f"{result.precision}, {len(result.rows[0].latency.times_ms)} rounds"
    )
    if csv is not None:
        write_text(Path(csv), result.csv())
    if json is not None:
        write_text(Path(json), result.json() + "\n")
    print(result.json())


def table(result: "BenchResult") -> str:
    """Aligned text, fastest first, with the time relative to the fastest."""
    rows = sorted(result.rows, key=lambda row: row.latency.median_ms)
    fastest = rows[0].latency.median_ms
    lines = [("model", "form", "runtime", "median ms", "95 % interval", "p90 ms", "images/s", "relative")]
    for row in rows:
        low, high = row.latency.interval_ms
        median = row.latency.median_ms
        lines.append(
            (
                row.model,
                row.form,
                row.runtime,
                f"{median:.2f}",
                f"{low:.2f} - {high:.2f}",
                f"{row.latency.p90_ms:.2f}",
                f"{result.batch * 1e3 / median:.1f}",
                f"{median / fastest:.2f}x",
            )
        )
    return aligned(lines, left=3)


def _progress(rounds: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\rround {done}/{rounds}", end="\n" if done == rounds else "", file=sys.stderr, flush=True)

    return show
