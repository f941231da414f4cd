"""Shows that a change which alters no maths alters no number: this source tree against an earlier commit.

    python benchmarks/same_numbers.py --against a06d65f

Both trees run the same tiny recipes through the command line: three models, each plain, with a moving average and MESA,
and with a teacher. Compared with torch.equal or ==: the weights of the model file; all tensors and the history of the
newest checkpoint; metrics.csv without its speeds; exported ONNX files. Ends with a table and one JSON line, which names
the first difference. Exit code 1 if there is one.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

THIS_TREE = Path(__file__).resolve().parents[1]
CPUS = 2  # one thread each
CLASSES, TRAINING_IMAGES, VALIDATION_IMAGES = ("crane", "heron", "stork"), 6, 3  # images of each class
RECIPES = {  # eight steps, two of them an epoch
    "fastvit": """
model: fastvit_debug
model_options: {drop_path_rate: 0.2}
data: {root: IMAGES, image_size: 32, total_batch: 8, micro_batch: 4, workers: 0}
optim: {lr: 2.0e-3, layer_decay: 0.8}
schedule: {epochs: 4, warmup_epochs: 1}
""",
    "fastervit": """
model: fastervit_debug
model_options: {drop_path_rate: 0.2}
data: {source: generated, image_size: 64, total_batch: 8, workers: 0}
optim: {name: lamb, lr: 4.0e-3, clip_norm: 1.0}
schedule: {epochs: 4, warmup_epochs: 1}
distill: {kind: soft, temperature: 2.0}
""",
    "swin": """
model: swin_debug_hat
data: {source: generated, image_size: 64, total_batch: 8, workers: 0}
optim: {name: sgd, lr: 2.0e-2, momentum: 0.9}
schedule: {epochs: 4, warmup_epochs: 1}
distill: {kind: soft, temperature: 2.0}
precision: bf16-mixed
""",
}
METHODS = {  # words of the command line
    "plain": ("--ema.decay=0",),
    "average and MESA": ("--ema.decay=0.9", "--mesa.weight=0.5", "--mesa.start=0.25"),
    "distillation": ("--ema.decay=0", "--distill.teacher=TEACHER"),
}
EXPORTED = ("fastvit", "fastervit")
SPEEDS = ("second", "wait")  # parts of the names of columns that no two runs share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against", required=True, metavar="COMMIT", help="the earlier tree; it has to be known to git"
    )
    against = parser.parse_args().against
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="same-numbers-") as name, worktree(against, Path(name) / "tree") as earlier:
        scratch = Path(name)
        write_images(scratch / "images")
        run_all({"before": earlier, "after": THIS_TREE}, scratch)
        found = compare_all(scratch)
    print(f"{'what':42} compared  difference")
    for what, (count, difference) in found.items():
        print(f"{what:42} {count:8}  {difference or 'none'}")
    first = next((f"{what}: {difference}" for what, (_, difference) in found.items() if difference), None)
    result = {
        "against": git("rev-parse", "--short", against),
        "this": git("describe", "--always", "--dirty"),
        "same": first is None,
        "first_difference": first,
        "values_compared": sum(count for count, _ in found.values()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(result))
    return 0 if first is None else 1


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """The files of a commit in a folder, as long as the context lasts."""
    git("worktree", "add", "--detach", "--quiet", str(folder), commit)
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(THIS_TREE), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def write_images(root: Path) -> None:
    """Photos of noise in class folders: the decoder and the augmentation are compared too."""
    generator = np.random.default_rng(0)
    for split, count in (("train", TRAINING_IMAGES), ("val", VALIDATION_IMAGES)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                size = int(generator.integers(40, 90)), int(generator.integers(40, 90))
                coarse.resize(size).save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")


def run_all(trees: dict[str, Path], scratch: Path) -> None:
    """Train and export with each tree, into scratch/before and scratch/after."""
    for tree in trees.values():
        found = python(tree, scratch, "-c", "import hybridvit; print(hybridvit.__file__)").strip()
        assert Path(found).is_relative_to(tree), f"{found} is not the package of {tree}"
    for recipe, text in RECIPES.items():
        (scratch / f"{recipe}.yaml").write_text(text.replace("IMAGES", str(scratch / "images")))
    both = list(trees.items())
    plain = [(train, tree, scratch, name, recipe, "plain") for recipe in RECIPES for name, tree in both]
    in_parallel(plain)  # the first tree's weights are the teachers of both
    others = [
        (train, tree, scratch, name, recipe, method)
        for recipe in RECIPES
        for method in METHODS
        for name, tree in both
        if method != "plain"
    ]
    in_parallel(others + [(export, tree, scratch, name, recipe) for recipe in EXPORTED for name, tree in both])


def in_parallel(jobs: list[tuple[Any, ...]]) -> None:
    with ThreadPoolExecutor(CPUS) as pool:
        for done in [pool.submit(*job) for job in jobs]:
            done.result()


def train(tree: Path, scratch: Path, name: str, recipe: str, method: str) -> None:
    teacher = str(scratch / "before" / recipe / "plain" / "model.safetensors")
    words = [word.replace("TEACHER", teacher) for word in METHODS[method]]
    output = f"--output={scratch / name / recipe / method}"
    config = str(scratch / f"{recipe}.yaml")
    python(tree, scratch, "-m", "hybridvit", "train", "--config", config, *words, "--accelerator=cpu", output)


def export(tree: Path, scratch: Path, name: str, recipe: str) -> None:
    weights = scratch / "before" / recipe / "plain" / "model.safetensors"
    output = scratch / name / f"{recipe}.onnx"
    python(tree, scratch, "-m", "hybridvit", "export", str(weights), "--to", "onnx", "--output", str(output))


def python(tree: Path, folder: Path, *words: str) -> str:
    """Run Python with the package of `tree`, on one thread; what it said."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} of {tree} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


Comparison = Callable[[Path, Path], tuple[int, str | None]]
"""Of two files or run folders: how many values were compared, and the first difference in words."""


def compare_all(scratch: Path) -> dict[str, tuple[int, str | None]]:
    comparisons: dict[str, Comparison] = {"weights": weights, "checkpoint": checkpoint, "numbers": numbers}
    found = {}
    for recipe in RECIPES:
        for method in METHODS:
            folders = (scratch / "before" / recipe / method, scratch / "after" / recipe / method)
            for what, comparison in comparisons.items():
                found[f"{recipe}, {method}, {what}"] = comparison(*folders)
    for recipe in EXPORTED:
        found[f"{recipe}, ONNX"] = onnx_files(
            scratch / "before" / f"{recipe}.onnx", scratch / "after" / f"{recipe}.onnx"
        )
    return found


def weights(before: Path, after: Path) -> tuple[int, str | None]:
    return tensors(before / "model.safetensors", after / "model.safetensors")


def checkpoint(before: Path, after: Path) -> tuple[int, str | None]:
    """Model, moving average and optimizer of the newest checkpoint."""
    newest = [max((run / "checkpoints").glob("step-*")) for run in (before, after)]
    if newest[0].name != newest[1].name:
        return 1, f"the newest checkpoint is {newest[0].name} and {newest[1].name}"
    return tensors(*(path / "tensors.safetensors" for path in newest))


def tensors(before: Path, after: Path) -> tuple[int, str | None]:
    left, right = load_file(before), load_file(after)
    for name, value in left.items():
        if name not in right:
            return len(left), f"{name} is missing after"
        if not torch.equal(value, right[name]):
            return len(left), f"{name} {apart(value, right[name])}"
    added = sorted(right.keys() - left.keys())
    return len(left), f"{added[0]} is new" if added else None


def apart(left: torch.Tensor, right: torch.Tensor) -> str:
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"is {left.dtype} {tuple(left.shape)} and {right.dtype} {tuple(right.shape)}"
    difference = (left.double() - right.double()).abs().max().item()
    return f"differs by up to {difference:.1e}, and its largest is {left.double().abs().max().item():.1e}"


def numbers(before: Path, after: Path) -> tuple[int, str | None]:
    """Losses, accuracies and learning rates: metrics.csv, and the history in the newest checkpoint."""
    left, right = ({**metrics(run), **history(run)} for run in (before, after))
    for name in [*left, *right]:
        if left.get(name) != right.get(name):
            return len(left), f"{name} is {left.get(name, 'missing')} and {right.get(name, 'missing')}"
    return len(left), None


def metrics(run: Path) -> dict[str, str]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        f"metrics.csv {name}, row {number}": value
        for number, row in enumerate(rows)
        for name, value in row.items()
        if not is_speed(name)
    }


def history(run: Path) -> dict[str, str]:
    newest = max((run / "checkpoints").glob("step-*"))
    state = plain(json.loads((newest / "state.json").read_text()))
    return {
        f"history {name}, row {number}": str(value)
        for number, row in enumerate(state["position"]["history"])
        for name, value in row.items()
        if not is_speed(name)
    }


def plain(packed: Any) -> Any:
    """The values of a state.json, where each container says in a word what it is."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "dict":
        return {key: plain(value) for key, value in content}
    return content if kind == "tensor" else [plain(value) for value in content]


def is_speed(name: str) -> bool:
    return any(part in name for part in SPEEDS)


def onnx_files(before: Path, after: Path) -> tuple[int, str | None]:
    """By bytes; where those differ in the metadata alone, that is no difference of numbers."""
    import onnx

    if before.read_bytes() == after.read_bytes():
        return before.stat().st_size, None
    left, right = onnx.load(before), onnx.load(after)
    for model in (left, right):
        del model.metadata_props[:]
    if left.SerializeToString(deterministic=True) == right.SerializeToString(deterministic=True):
        print(f"{after.name}: only the metadata differs")
        return before.stat().st_size, None
    kinds = [[node.op_type for node in model.graph.node] for model in (left, right)]
    settings = [[sorted(str(each) for each in node.attribute) for node in model.graph.node] for model in (left, right)]
    values = [sorted(digest(each) for each in model.graph.initializer) for model in (left, right)]
    if kinds[0] != kinds[1]:
        return before.stat().st_size, f"its operations ({len(kinds[0])} and {len(kinds[1])} of them)"
    if settings[0] != settings[1]:
        return before.stat().st_size, "the attributes of its operations, which are the same"
    if values[0] != values[1]:
        return before.stat().st_size, "its weights; the operations are the same"
    return before.stat().st_size, "names or order; operations, attributes and weights are the same"


def digest(initializer: Any) -> str:
    from onnx import numpy_helper

    value = numpy_helper.to_array(initializer)
    return hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
