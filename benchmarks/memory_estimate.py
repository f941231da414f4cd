"""The estimate of `hybridvit doctor RECIPE` against the peak of real runs on this CPU.

    python benchmarks/memory_estimate.py

Each case is a process of its own: two steps on generated images, validation and save left out of the peak by being
smaller. The peak is the highest resident memory over that of the process before the run.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from comparison import report

CASES = (
    ("fastvit_t8", "--data.total_batch=16"),
    ("fastvit_t8", "--data.total_batch=64"),
    ("fastvit_sa12", "--data.total_batch=32", "--data.micro_batch=16"),
    ("fastervit_0", "--data.total_batch=16", "--precision=32-true"),
    ("fastervit_0", "--data.total_batch=16", "--precision=bf16-mixed"),
)
SMALL = (
    "--data.source=generated",
    "--data.workers=0",
    "--accelerator=cpu",
    "--schedule.epochs=1",
    "--schedule.warmup_epochs=0",
    "--schedule.cooldown_epochs=0",
    "--mesa.start=0.0",
)


def measure_case(recipe_name: str, overrides: list[str]) -> dict[str, float]:
    """Estimate and real peak, in MiB."""
    from hybridvit.recipe.file import load_recipe
    from hybridvit.training.train import train
    from hybridvit.training.trial.memory_estimate import estimate_memory

    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(recipe_name, [*SMALL, f"--output={folder}/run", *overrides])
        estimate = estimate_memory(recipe, devices=1, num_classes=10).total
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest is counted from here
        train(recipe, progress=False)
        peak = _status("VmHWM") - before
    return {"estimate_mib": round(estimate / 2**20), "real_mib": round(peak / 2**20)}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure_case(sys.argv[1], sys.argv[2:])))
        return
    results = []
    for case in CASES:
        done = subprocess.run([sys.executable, __file__, *case], capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        row |= {"case": " ".join(case), "error_percent": round(100 * (row["estimate_mib"] / row["real_mib"] - 1), 1)}
        results.append(row)
        print(f"{row['case']:<55} {row['estimate_mib']:6} of {row['real_mib']:6} MiB  {row['error_percent']:+.1f} %")
    report("memory_estimate", results)


if __name__ == "__main__":
    main()
