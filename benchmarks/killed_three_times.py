"""A run that is killed three times at random and goes on by itself, against one that is left alone.

    python benchmarks/killed_three_times.py                       two processes on the CPU
    python benchmarks/killed_three_times.py --processes 4 --model fastervit_debug --seed 5

Both are `torchrun --max-restarts 3 -m hybridvit train RECIPE --resume auto`. In one, SIGKILL hits a random process
after three random checkpoints. Ends with one JSON line: where it was killed, and whether weights, averaged weights,
optimizer and metrics are the same bits. Exit code 1 if they are not.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from hybridvit.training.run.snapshot import PREFIX, newest_snapshot, read_snapshot

KILLS = 3
RECIPE = """
model: {model}
model_options: {{drop_path_rate: 0.2}}
data: {{source: generated, image_size: 32, total_batch: 16, micro_batch: {micro_batch}, workers: {workers}}}
schedule: {{epochs: {epochs}, warmup_epochs: 1}}
ema: {{decay: 0.9}}
save_every: 0.5
validate_every: 3
timeout_seconds: 20
accelerator: cpu
seed: {seed}
"""  # two steps an epoch, so a checkpoint after each


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--model", default="fastvit_debug")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(
            RECIPE.format(
                model=options.model,
                micro_batch=16 // options.processes // 2,
                workers=options.workers,
                epochs=options.epochs,
                seed=options.seed,
            )
        )
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        run(recipe, alone, options.processes, targets=[])
        chance = random.Random(options.seed)
        targets = sorted(chance.sample(range(2, 2 * options.epochs - 2), options.kills))
        kills = run(recipe, killed, options.processes, targets, chance)
        result = {"kills": kills, "steps": 2 * options.epochs, "processes": options.processes} | compare(alone, killed)
    result["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(result))
    return 0 if result["same_bits"] and len(kills) == options.kills else 1


def run(
    recipe: Path, output: Path, processes: int, targets: list[int], chance: random.Random | None = None
) -> list[dict[str, int]]:
    """Train to the end, killing one of the processes when the checkpoint of each target is there; where that was."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", str(KILLS)),
        *("--monitor-interval", "0.1", "--nproc-per-node", str(processes)),
        *("-m", "hybridvit", "train", "--config", str(recipe), "--output", str(output), "--resume", "auto"),
    ]
    if sys.platform == "win32":
        raise SystemExit("Windows has no SIGKILL.")
    kills = []
    log = output.with_suffix(".log")
    with log.open("w") as file:
        launcher = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            for target in targets:
                while (step := newest_step(output)) < target and launcher.poll() is None:
                    time.sleep(0.005)
                victim = (chance or random).choice(children(launcher.pid))
                rank = rank_of(victim)
                os.kill(victim, signal.SIGKILL)
                kills.append({"step": step, "rank": rank})
                while victim in children(launcher.pid) and launcher.poll() is None:
                    time.sleep(0.05)
            if launcher.wait(timeout=600):
                raise SystemExit(f"The run ended with {launcher.returncode}:\n{log.read_text()}")
        finally:
            launcher.kill()
            launcher.wait()
    return kills


def newest_step(output: Path) -> int:
    names = [path.name for path in (output / "checkpoints").glob(f"{PREFIX}*")]
    return max((int(name.removeprefix(PREFIX)) for name in names), default=0)


def children(launcher: int) -> list[int]:
    """The training processes that torchrun has started and that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == launcher and state != "Z" and rank_of(int(path.parent.name)) >= 0:
            found.append(int(path.parent.name))
    return sorted(found)


def rank_of(process: int) -> int:
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return -1
    return next((int(variable[5:]) for variable in variables if variable.startswith(b"RANK=")), -1)


def compare(alone: Path, killed: Path) -> dict[str, Any]:
    states = [read_snapshot(newest_snapshot(output / "checkpoints") or output) for output in (alone, killed)]
    same = {name: same_bits(states[0][name], states[1][name]) for name in ("model", "ema", "optimizer")}
    same["metrics"] = metrics(alone) == metrics(killed)
    same["model_file"] = (alone / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    return {"same_bits": all(same.values()), "same": same}


def same_bits(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_bits(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    return bool(left == right)


def metrics(output: Path) -> list[dict[str, str]]:
    """All of metrics.csv but the speed."""
    with (output / "metrics.csv").open() as file:
        return [{key: row[key] for key in row if "second" not in key} for row in csv.DictReader(file)]


if __name__ == "__main__":
    sys.exit(main())
