"""A training step with and without the thresholds of the allocator that every command sets (`machine/allocator.py`).

    python benchmarks/step_allocator.py                  # four processes each, in turns

fastvit_t8, batch 8, 128 px, fp32, channels-last, AdamW, on a CPU. A process has the thresholds or leaves the allocator
as it finds it after the imports, and tells the median of the steps after the first few: elapsed time, processor time
(which says more where others use the machine too) and page faults. The processes run one after the other, in pairs,
every other pair the other way round. A pair's ratio is the time without the thresholds by that with them: above 1, they
help.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from comparison import report
from training_step import step

import hybridvit
from hybridvit.machine.allocator import keep_freed_memory, page_faults

HERE = Path(__file__).resolve()
WITH, WITHOUT = SIDES = ("with", "without")
KEYS = ("elapsed_ms", "processor_ms", "faults")
NAME, BATCH, SIDE = "fastvit_t8", 8, 128
FIRST = 3  # steps before those that count


def measured_here(steps: int) -> dict[str, float]:
    """Medians over the steps of this process."""
    run = step(hybridvit.create_model(NAME), batch=BATCH, side=SIDE, device="cpu", channels_last=True)
    found = []
    for _ in range(FIRST + steps):
        before = time.perf_counter() * 1e3, time.process_time() * 1e3, page_faults() or 0
        run()
        after = time.perf_counter() * 1e3, time.process_time() * 1e3, page_faults() or 0
        found.append([end - start for start, end in zip(before, after, strict=True)])
    return dict(zip(KEYS, map(statistics.median, zip(*found[FIRST:], strict=True)), strict=True))


def alone(side: str, steps: int) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, str(HERE), "--here", side, "--steps", str(steps)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="of each side")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a process")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    parser.add_argument("--here", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        if options.here == WITH:
            keep_freed_memory()
        print(json.dumps(measured_here(options.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(options.processes):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            found[side].append(alone(side, options.steps))
    results: dict[str, Any] = {"model": NAME, "batch": BATCH, "side_px": SIDE, "processes": found}
    for side in SIDES:
        print(side, *(f"{key} {statistics.median(each[key] for each in found[side]):.1f}" for key in KEYS), sep="  ")
    for key in KEYS[:2]:
        pairs = zip(found[WITHOUT], found[WITH], strict=True)
        ratios = [without[key] / with_them[key] for without, with_them in pairs]
        print(f"{key}, without by with: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        results[f"ratio_{key}"] = ratios
    report("step_allocator", results, output=options.output)


if __name__ == "__main__":
    main()
