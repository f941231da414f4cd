"""How fast this source tree is against an earlier commit: a training, a fold, an export, predictions.

    python benchmarks/same_speed.py --against a06d65f

Both trees take turns, each turn in processes of its own. Printed are the medians over the turns, their ratio (above 1:
slower now) and the range of the ratios turn by turn; the last line is JSON. Only what both trees have is called: the
command line, create_model, fold and export.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve()
DIGITS = ["--schedule.epochs", "2", "--schedule.warmup_epochs", "0", "--accelerator", "cpu", "--seed", "1"]
NUM_PICTURES = 64


def measured_here(folder: Path) -> dict[str, float]:
    """Seconds of each thing in the tree that is imported; the training's are of 1,000 images."""
    import contextlib
    import io

    import numpy as np
    import torch
    from PIL import Image

    import hybridvit
    from hybridvit.cli.main import main
    from hybridvit.export.pipeline import export

    torch.manual_seed(0)
    model = hybridvit.create_model("fastvit_t8", num_classes=10).eval()
    checkpoint = folder / "t8.safetensors"
    hybridvit.save_checkpoint(model, checkpoint)
    pictures = folder / "pictures"
    pictures.mkdir()
    dice = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        Image.fromarray(dice.integers(0, 256, (256, 320, 3), dtype=np.uint8)).save(pictures / f"{number}.jpg")

    def silently(*words: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(words) == 0

    found = {
        "fold fastvit_t8": timed(lambda: hybridvit.fold(model), 5),
        "export fastvit_t8 to ONNX": timed(lambda: export(model, folder / "t8.onnx"), 1),
        "predict 64 pictures": timed(lambda: silently("predict", str(checkpoint), str(pictures), "--json"), 3),
        "predict 64 pictures, ONNX": timed(lambda: silently("predict", str(folder / "t8.onnx"), str(pictures)), 3),
    }
    silently("train", "digits", *DIGITS, "--data.root", str(folder / "digits"), "--output", str(folder / "run"))
    with (folder / "run" / "metrics.csv").open(encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    with (folder / "run" / "steps.csv").open(encoding="utf-8") as file:
        seconds = float(list(csv.DictReader(file))[-1]["seconds"])
    return found | {"train 1,000 digits": 1000 / float(row["images_per_second"]), "two epochs, validations": seconds}


def timed(do: Callable[[], object], times: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def turn(tree: Path) -> dict[str, float]:
    """What `tree` takes, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(HERE), "--here", folder],
            env=os.environ | {"PYTHONPATH": str(tree)},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--here", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured_here(Path(options.here))))
        return
    root = HERE.parents[1]
    before: list[dict[str, float]] = []
    now: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "tree"
        git = ["git", "-C", str(root), "worktree"]
        subprocess.run([*git, "add", "--detach", str(old), options.against], check=True, capture_output=True)
        try:
            for number in range(options.turns):
                for tree, results in ((old, before), (root, now))[:: 1 if number % 2 else -1]:
                    results.append(turn(tree))
        finally:
            subprocess.run([*git, "remove", "--force", str(old)], check=True, capture_output=True)
    summary = {}
    for name in now[0]:
        pairs = [(one[name], other[name]) for one, other in zip(before, now, strict=True)]
        ratios = sorted(after / earlier for earlier, after in pairs)
        medians = [statistics.median(values) for values in zip(*pairs, strict=True)]
        summary[name] = {"before_s": medians[0], "now_s": medians[1], "ratio": statistics.median(ratios)}
        print(
            f"{name:28} before {medians[0]:8.3f} s   now {medians[1]:8.3f} s   ratio {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )
    print(json.dumps({"against": options.against, "turns": options.turns, **summary}))


if __name__ == "__main__":
    main()
