"""int8 against fp32 in the same runtime: what it costs in accuracy and what it gains in time, on 2 CPU cores.

    python benchmarks/int8.py                                        # trains fastvit_t8 on the digits first
    python benchmarks/int8.py --checkpoint runs/digits/model.safetensors --targets openvino onnx executorch

Accuracy on the test images at the size that was trained on; time there and at 256 px, batch 1.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from comparison import compare, report

from hybridvit.checkpoints import load
from hybridvit.data.preprocess import prepare
from hybridvit.export import EXPORTERS, ExportedRunner, load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.quantise import plan_from_folder
from hybridvit.measure.choose import score_of
from hybridvit.models.whole import WholeModel

THREADS = 2
SIDES_PX = (None, 256)  # None: as it was trained
NUM_MEASURED = 32  # images at a size where accuracy means nothing


def trained(folder: Path) -> Path:
    """A checkpoint of the digits recipe."""
    subprocess.run([sys.executable, "-m", "hybridvit", "train", "digits", "--output", str(folder)], check=True)
    return folder / "model.safetensors"


def of_target(model: WholeModel, data: Path, target: str, side: int | None, *, max_drop: float, rounds: int) -> object:
    """Both files of one target at one size: their accuracy if the size is the model's own, and their times."""
    size = model.card.preprocessing.image_size if side is None else (side, side)
    plan = plan_from_folder(data / "train", model.card, labelled=data / "test", max_drop=max_drop)
    if side is not None:
        some = replace(plan.labelled, paths=plan.labelled.paths[::11][:NUM_MEASURED])
        plan = replace(plan, labelled=some, max_drop=None)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}{EXPORTERS[target].suffix}") for name in ("fp32", "int8")}
        fp32 = export(model, paths["fp32"], to=target, options=ExportOptions(image_size=size))
        int8 = export(
            model, paths["int8"], to=target, options=ExportOptions(image_size=size, precision="int8"), quantisation=plan
        )
        runners = {name: load_runner(path, threads=THREADS) for name, path in paths.items()}
        results: dict[str, object] = {
            "target": target,
            "image_size": size,
            "bytes": {"fp32": fp32.size_bytes, "int8": int8.size_bytes},
        }
        if side is None:
            accuracy = {name: score_of(str(path), data / "test") for name, path in paths.items()}
            drop = accuracy["fp32"] - accuracy["int8"]
            print(
                f"\n{target}: top-1 {accuracy['fp32']:.2f} % in fp32, {accuracy['int8']:.2f} % in int8, drop {drop:.2f}"
            )
            results |= {"top1": accuracy, "drop": drop, "report": int8.quality.to_dict() if int8.quality else None}
        image = prepare(plan.labelled.paths[0], replace(model.card.preprocessing, image_size=size))[None]
        candidates = {name: _call(runner, image) for name, runner in runners.items()}
        title = f"{model.card.architecture}, {target}, batch 1, {size[0]} px, {THREADS} threads"
        return results | {"times": compare(title, candidates, rounds=rounds)}


def _call(runner: ExportedRunner, image: np.ndarray) -> Callable[[], object]:
    return lambda: runner(image)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="fastvit_t8 of the digits recipe; by default one is trained")
    parser.add_argument("--data", type=Path, default=Path("runs/data/digits"), help="folder with train and test")
    parser.add_argument("--targets", nargs="+", default=["openvino", "onnx"])
    parser.add_argument("--max_drop", type=float, default=0.5, help="points of top-1")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        network = load(arguments.checkpoint or trained(Path(scratch, "digits")))
        measured = [
            of_target(network, arguments.data, target, side, max_drop=arguments.max_drop, rounds=arguments.rounds)
            for target in arguments.targets
            for side in SIDES_PX
        ]
    report("int8", measured, output=arguments.output)
