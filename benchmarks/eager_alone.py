"""Folded models in PyTorch's eager mode, each alone in a process of its own, ours against timm's.

    python benchmarks/eager_alone.py                              # fastvit_t8 and fastvit_sa12, ten processes each
    python benchmarks/eager_alone.py --as_glibc_starts            # the same without the allocator's thresholds

Batch 1, 256 px, fp32, on a CPU. The processes run one after the other, in pairs of ours and timm's, every other pair
the other way round. A process builds its own side alone, keeps freed memory as every command of hybridvit does
(`hybridvit/machine/allocator.py`), lets its threads wait as PyTorch does by default, calls the model until its time is
stable, and tells the median of the calls after that and their page faults. A pair's ratio is timm's median by ours:
above 1, ours is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from comparison import report
from torch import nn

from hybridvit.machine.allocator import keep_freed_memory, page_faults
from hybridvit.machine.threads import POLICY
from hybridvit.measure.latency import timed, warm_up

HERE = Path(__file__).resolve()
NAMES = ("fastvit_t8", "fastvit_sa12")
OURS, TIMMS = SIDES = ("ours", "timm")


def folded(side: str, name: str) -> nn.Module:
    """The model of one side; the other's package is not imported."""
    if side == OURS:
        import hybridvit

        return hybridvit.fold(hybridvit.create_model(name).eval())
    import timm
    from timm.utils import reparameterize_model

    return reparameterize_model(timm.create_model(name).eval())


def measured_here(side: str, name: str, calls: int) -> dict[str, Any]:
    """What one model takes in this process."""
    model, images = folded(side, name), torch.randn(1, 3, 256, 256)

    def run() -> None:
        with torch.inference_mode():
            model(images)

    turn = timed(run)
    is_stable = warm_up(turn)
    before = page_faults()
    times_ms = turn(calls)
    after = page_faults()
    return {
        "median_ms": statistics.median(times_ms),
        "faults_per_call": None if before is None or after is None else (after - before) / calls,
        "is_stable": is_stable,
    }


def alone(side: str, name: str, calls: int, *, keep: bool) -> dict[str, Any]:
    """The same in a process of its own."""
    words = [sys.executable, str(HERE), "--here", side, "--names", name, "--calls", str(calls)]
    environment = {key: value for key, value in os.environ.items() if key != POLICY}
    done = subprocess.run(
        [*words, *([] if keep else ["--as_glibc_starts"])], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def compared(name: str, processes: int, calls: int, *, keep: bool) -> dict[str, Any]:
    """Both sides of one model, in turns; a table is printed."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(processes):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            found[side].append(alone(side, name, calls, keep=keep))
    print(f"\n{name}, folded, eager, batch 1, 256 px: {processes} processes each, {calls} calls in a process")
    for side in SIDES:
        times, faults = (_range(found[side], key) for key in ("median_ms", "faults_per_call"))
        unstable = sum(not each["is_stable"] for each in found[side])
        said = f"; in {unstable} the time had not become stable" if unstable else ""
        print(f"  {side}  {times} ms, {faults} page faults a call{said}")
    ratios = [timms["median_ms"] / ours["median_ms"] for ours, timms in zip(found[OURS], found[TIMMS], strict=True)]
    print(f"  timm's time by ours: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return {
        "name": name,
        "ratio": round(statistics.median(ratios), 4),
        "ratio_lowest": round(min(ratios), 4),
        "ratio_highest": round(max(ratios), 4),
        "processes": found,
    }


def _range(results: list[dict[str, Any]], key: str) -> str:
    """Median, lowest and highest over the processes."""
    values = [each[key] for each in results if each[key] is not None]
    if not values:
        return "unknown"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--processes", type=int, default=10, help="of each side and model")
    parser.add_argument("--calls", type=int, default=100, help="timed calls of a process")
    parser.add_argument("--as_glibc_starts", action="store_true", help="leave the allocator as it is, in both")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    parser.add_argument("--here", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep = not options.as_glibc_starts
    if options.here:
        if keep:
            keep_freed_memory()
        print(json.dumps(measured_here(options.here, options.names[0], options.calls)))
        return
    results = [compared(name, options.processes, options.calls, keep=keep) for name in options.names]
    report("eager_alone", {"keeps_freed_memory": keep, "models": results}, output=options.output)


if __name__ == "__main__":
    main()
