"""Our exported files against timm's folded FastViT, and NVIDIA's FasterViT, exported the plain way.

    python benchmarks/deployment.py                                   # 2 CPU cores, fp32, batch 1, all three runtimes
    python benchmarks/deployment.py --runtimes onnx --names fastvit_t8 --rounds 400
    python benchmarks/deployment.py --threads 1 --processor_time      # on a machine that others use
    python benchmarks/deployment.py --runtimes torch onnx openvino executorch --names fastvit_mci0 fastvit_mci1 \
        fastvit_mci2 fastvit_mci3 fastvit_mci4                        # MobileCLIP's image towers, in PyTorch too

Plain is what each runtime's own guide does: torch.onnx.export; its file in OpenVINO; torch.export and XNNPACK's
partitioner. Ours is what `hybridvit export --batch 1` writes. Both take one image of one size, and both are opened by
the same call with the same options; "as hybridvit opens it" is ours through `load_runner`, checks of the input
included. "without rewrites" is ours before the rewrites of `hybridvit/export/rewrites.py`. In PyTorch, eager, both are
folded and called. Image towers give their bare projection on both sides.

Linux alone: after a warm-up the main thread is bound to one core and the runtimes' threads to the others, since the
kernel leaves threads that wake for microseconds where they were, two on one core. Each file is written, and each model
compared in each runtime, in a process of its own: executorch's exporter can fail after another export in the same one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from comparison import compare, report
from in_runtimes import Run, opened, to_onnx
from torch import nn

import hybridvit
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.targets import EXPORTERS
from hybridvit.measure.opened import pin_threads

TORCH = "torch"
SIDES = PLAIN, _, OURS = ("theirs, plain", "ours, without rewrites", "ours")
FASTVIT, FASTERVIT = ("fastvit_t8", "fastvit_sa12", "fastvit_ma36"), ("fastervit_0", "fastervit_2")


def theirs(name: str) -> nn.Module:
    """timm's model, folded by timm; NVIDIA's as it is, for its "deployed" form is no faster exported."""
    if name.startswith("fastvit"):
        import timm
        from timm.utils import reparameterize_model

        return reparameterize_model(timm.create_model(name).eval())
    import fastervit_inference

    return fastervit_inference.theirs(int(name.removeprefix("fastervit_")))


def written_plainly(target: str, model: nn.Module, images: torch.Tensor) -> bytes:
    """The model in the format of a target, by the exporter's defaults."""
    if target != "executorch":
        return to_onnx(model, images)  # OpenVINO reads it
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model, (images,))
    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


def images_for(name: str) -> torch.Tensor:
    """One image of the size that a model was made for."""
    size = 256 if name.startswith("fastvit") else 224
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def file_of(side: str, name: str, target: str, folder: Path) -> Path:
    """Where one side of a comparison is."""
    return folder / f"{name}-{SIDES.index(side)}{EXPORTERS[target].suffix}"


def write(side: str, name: str, target: str, folder: Path) -> None:
    """One side of a comparison in the format of a target."""
    torch.manual_seed(0)
    images, path = images_for(name), file_of(side, name, target, folder)
    if side == PLAIN:
        path.write_bytes(written_plainly(target, theirs(name), images))
        return
    with nullcontext() if side == OURS else _no_rewrites(target):
        height, width = images.shape[2:]
        export(
            hybridvit.create_model(name).eval(),
            path,
            to=target,
            options=ExportOptions(batch=1, image_size=(height, width), returns="logits"),
        )


def contenders(name: str, target: str, threads: int, folder: Path) -> dict[str, Run]:
    """All ways to run one model in one runtime, from the files that `write` wrote."""
    if target == TORCH:
        folded = {PLAIN: theirs(name), OURS: hybridvit.fold(hybridvit.create_model(name).eval())}
        return {side: partial(_called, model, images_for(name)) for side, model in folded.items()}
    images, exporter = images_for(name), EXPORTERS[target]
    runs: dict[str, Run] = {}
    for side in SIDES:
        path = file_of(side, name, target, folder)
        parts = () if side == PLAIN else exporter.companions(path)
        weights = b"".join(part.read_bytes() for part in parts)
        runs[side] = opened(target, path.read_bytes(), images, weights=weights, threads=threads)
    runner = exporter.load_runner(file_of(OURS, name, target, folder), threads=threads)
    runs["ours, as hybridvit opens it"] = partial(runner, images.numpy())
    return runs


@torch.inference_mode()
def _called(model: nn.Module, images: torch.Tensor) -> object:
    return model(images)


@contextmanager
def _no_rewrites(target: str) -> Iterator[None]:
    with patch.object(type(EXPORTERS[target]), "rewrites", return_value=()):
        yield


def compared(name: str, target: str, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """The files of one model for one runtime, timed in turns."""
    torch.set_num_threads(arguments.threads)
    if target == "executorch":
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(arguments.threads)
    runs = contenders(name, target, arguments.threads, folder)
    for run in runs.values():
        run()
    pin_threads(arguments.threads)
    title = f"{name}, {target}, batch 1, {arguments.threads} threads"
    clock = time.process_time if arguments.processor_time else time.perf_counter
    return compare(title, runs, rounds=arguments.rounds, warmup=5, clock=clock)


def measured(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One comparison per model and runtime."""
    results = []
    for name in arguments.names:
        for target in arguments.runtimes:
            with tempfile.TemporaryDirectory() as folder:
                for side in SIDES if target != TORCH else ():
                    apart(write, side, name, target, Path(folder))
                results.append(apart(compared, name, target, Path(folder), arguments))
    return results


def apart(function: Callable[..., Any], *given: object) -> Any:
    """The result of a call in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runtimes = ["onnx", "openvino", "executorch"]
    parser.add_argument("--runtimes", nargs="+", choices=[TORCH, *runtimes], default=runtimes)
    parser.add_argument("--names", nargs="+", default=[*FASTVIT, *FASTERVIT])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor_time", action="store_true", help="of the whole process; for one thread")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    given = parser.parse_args()
    report("deployment", cast(object, measured(given)), output=given.output)
