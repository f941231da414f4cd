"""Do the training methods help? A small student with and without each, on real digits and on generated shapes.

    python benchmarks/methods.py                 # 2 sets x 5 recipes x 3 seeds and 2 teachers, on one thread

Digits: 1,437 images to train on. Shapes: 5,000, a fifth of them with a wrong label. The teacher is a wider model that
the same loop has trained on the same images. Every run is `hybridvit.training.train` of a recipe; accuracy is that of
the raw weights at the end, on images that no run has seen, but for the row "EMA", which is the averaged weights of the
same baseline runs. Differences are paired by seed.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comparison import report
from generated_shapes import write_shapes

from hybridvit.recipe.file import load_recipe
from hybridvit.training.train import train

STUDENT, TEACHER = (8, 16, 32, 64), (24, 48, 96, 192)  # widths of fastvit_debug
COMMON: dict[str, Any] = {
    "model": "fastvit_debug",
    "data.val": "test",
    "data.image_size": 32,
    "data.total_batch": 64,
    "augment.color_jitter": 0.0,
    "optim.lr": 4.0e-3,
    "schedule.warmup_epochs": 1,
    "ema.decay": 0.99,
    "accelerator": "cpu",
    "keep": 1,
}
SETS: dict[str, dict[str, Any]] = {
    "digits": {"data.source": "digits", "schedule.epochs": 6},
    "shapes": {
        "data.source": "folder",
        "data.total_batch": 32,
        "schedule.epochs": 12,
        "augment.scale": [0.7, 1.0],
        "augment.hflip": 0.5,
    },
}
BASELINE, AVERAGED = "baseline", "EMA"
METHODS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "distillation, hard": {"distill.kind": "hard"},
    "distillation, soft": {"distill.kind": "soft", "distill.temperature": 2.0},
    "MESA": {"mesa.weight": 1.0},
    "mixup and CutMix": {"augment.mixup": 0.8, "augment.cutmix": 1.0},
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training left."""

    raw: float  # percent of the test images
    averaged: float
    core_seconds: float  # of computation: on a shared machine the clock on the wall says little
    model: Path


def run(images: str, changes: Mapping[str, Any], output: Path, *, widths: tuple[int, ...], epochs: int | None) -> Run:
    """Train one recipe on one set."""
    settings = COMMON | SETS[images] | dict(changes) | {"output": str(output)}
    settings["model_options"] = {"widths": list(widths)}
    if epochs is not None:
        settings |= {"schedule.epochs": epochs, "schedule.warmup_epochs": 0}
    settings["validate_every"] = settings["save_every"] = settings["schedule.epochs"]  # at the end alone
    began = time.process_time()
    result = train(load_recipe("digits", settings), progress=False)
    last = result.history[-1]
    return Run(
        raw=last["top1"],
        averaged=last["ema_top1"],
        core_seconds=time.process_time() - began,
        model=result.model,
    )


def compare_on(images: str, seeds: list[int], output: Path, epochs: int | None) -> dict[str, Any]:
    """All methods on one set: accuracies by seed, and how they differ from the baseline's."""
    root = {"data.root": str(output / "data" / images)}
    if images == "shapes":
        write_shapes(output / "data" / images)
    teacher = run(images, root | {"seed": 100}, output / images / "teacher", widths=TEACHER, epochs=epochs)
    print(f"\n{images}: the teacher reaches {max(teacher.raw, teacher.averaged):.2f} %", flush=True)
    runs: dict[str, list[Run]] = {}
    for seed in seeds:
        for method, changes in METHODS.items():
            taught = {"distill.teacher": str(teacher.model)} if "distill.kind" in changes else {}
            folder = output / images / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"
            changed = root | changes | taught | {"seed": seed}
            done = run(images, changed, folder, widths=STUDENT, epochs=epochs)
            print(f"  seed {seed}  {method:<20} raw {done.raw:6.2f}  averaged {done.averaged:6.2f}", flush=True)
            runs.setdefault(method, []).append(done)
    accuracies = {method: [each.raw for each in rows] for method, rows in runs.items()}
    accuracies[AVERAGED] = [each.averaged for each in runs[BASELINE]]
    cost = {method: statistics.mean(each.core_seconds for each in rows) for method, rows in runs.items()}
    print(f"  {'':<20} {'top-1 %':>16} {'difference':>16}  better?  time")
    rows = {method: _row(method, accuracies, cost) for method in accuracies}
    return {"teacher": round(max(teacher.raw, teacher.averaged), 2), "rows": rows}


def _row(method: str, accuracies: Mapping[str, list[float]], cost: Mapping[str, float]) -> dict[str, Any]:
    """One line of the table, printed and returned."""
    own, base = accuracies[method], accuracies[BASELINE]
    gains = [round(one - other, 2) for one, other in zip(own, base, strict=True)]  # a tie is none by rounding
    better = "yes" if min(gains) > 0 else "on average" if round(statistics.mean(gains), 2) > 0 else "no"
    better = "" if method == BASELINE else better
    slower = cost.get(method, cost[BASELINE]) / cost[BASELINE]
    print(
        f"  {method:<20} {statistics.mean(own):7.2f} +- {_spread(own):4.2f} {statistics.mean(gains):+9.2f} +- "
        f"{_spread(gains):4.2f}  {better:<10} x{slower:.2f}",
        flush=True,
    )
    return {
        "top1": [round(value, 2) for value in own],
        "mean": round(statistics.mean(own), 2),
        "spread": round(_spread(own), 2),
        "difference": round(statistics.mean(gains), 2),
        "difference_spread": round(_spread(gains), 2),
        "better": better,
        "time": round(slower, 2),
    }


def _spread(values: list[float]) -> float:
    """Standard deviation over the seeds."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="fewer epochs, to see that everything runs")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {name: compare_on(name, arguments.seeds, arguments.output, arguments.epochs) for name in arguments.sets}
    report("methods", {"seeds": arguments.seeds, "sets": results})


if __name__ == "__main__":
    main()
