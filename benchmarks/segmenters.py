"""Our segmenters against segmentation_models_pytorch's FPN on timm's folded FastViT, exported the plain way.

    python benchmarks/segmenters.py                                        # 2 CPU cores, fp32, batch 1, 512 px
    python benchmarks/segmenters.py --names fastvit_t8 --side 256 --rounds 10 --threads 1 --processor_time

Theirs is smp's FPN with its own widths (256 and 128), timm's backbone folded by timm, and what torch.onnx.export makes
of it. Ours is what `hybridvit export --batch 1 --image_size SIDE` writes of a Semantic FPN. Its pyramid has a 3x3
convolution on each map that smp's lacks: of the same widths it multiplies more, with 128 and 128 as much. Both rows are
given, with the multiply-adds of each. All files are opened by the same call, in ONNX Runtime, and take turns.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import cast

import torch
from comparison import compare, report
from deployment import apart
from in_runtimes import opened, to_onnx
from torch import nn

import hybridvit
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.measure.counts import count
from hybridvit.measure.opened import pin_threads

CLASSES = 150
WIDTHS = {"ours, as many multiply-adds": (128, 128), "ours, same widths": (256, 128)}  # pyramid, head
PLAIN = "smp on timm, plain"


def theirs(name: str) -> nn.Module:
    """smp's FPN on timm's backbone, folded."""
    import segmentation_models_pytorch
    from timm.utils import reparameterize_model

    model = segmentation_models_pytorch.FPN(f"tu-{name}", encoder_weights=None, classes=CLASSES)
    return reparameterize_model(model.eval())


def ours(name: str, widths: tuple[int, int]) -> nn.Module:
    """A Semantic FPN of these widths on our backbone."""
    options = {"pyramid_channels": widths[0], "channels": widths[1]}
    return hybridvit.create_model(name, task="segment", num_classes=CLASSES, head_options=options).eval()


def write(side: str, name: str, path: Path, pixels: int) -> int:
    """One side as a file; returns its multiply-adds for one image."""
    torch.manual_seed(0)
    size = (pixels, pixels)
    if side == PLAIN:
        model = theirs(name)
        path.write_bytes(to_onnx(model, torch.randn(1, 3, *size)))
        return count(model, size).multiply_adds
    model = ours(name, WIDTHS[side])
    export(model, path, options=ExportOptions(batch=1, image_size=size))
    return count(hybridvit.fold(model), size).multiply_adds


def compared(name: str, paths: dict[str, Path], arguments: argparse.Namespace) -> dict[str, object]:
    """The files of one model, timed in turns."""
    torch.set_num_threads(arguments.threads)
    images = torch.randn(1, 3, arguments.side, arguments.side)
    runs = {side: opened("onnx", path.read_bytes(), images, threads=arguments.threads) for side, path in paths.items()}
    for run in runs.values():
        run()
    pin_threads(arguments.threads)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    title = f"{name} with an FPN, {arguments.side} px, batch 1, {arguments.threads} threads, ONNX Runtime"
    return compare(title, runs, rounds=arguments.rounds, warmup=3, clock=clock)


def measured(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One comparison per model."""
    results = []
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            paths = {side: Path(folder, f"{number}.onnx") for number, side in enumerate((PLAIN, *WIDTHS))}
            counts = {side: apart(write, side, name, path, arguments.side) for side, path in paths.items()}
            result = apart(compared, name, paths, arguments)
        print("  multiply-adds: " + ", ".join(f"{side} {each / 1e9:.2f} G" for side, each in counts.items()))
        results.append(result | {"multiply_adds": counts})
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["fastvit_t8", "fastvit_sa12"])
    parser.add_argument("--side", type=int, default=512, help="of the square image, in pixels")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor_time", action="store_true", help="of the whole process; for one thread")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    given = parser.parse_args()
    report("segmenters", cast(object, measured(given)), output=given.output)
