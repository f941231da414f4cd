"""Our exported files against timm's folded FastViT, and NVIDIA's FasterViT, exported the plain way.

    python benchmarks/deployment.py                                   # 2 CPU cores, fp32, batch 1, all three runtimes
    python benchmarks/deployment.py --runtimes onnx --names fastvit_t8 --rounds 400
    python benchmarks/deployment.py --threads 1 --processor_time      # on a machine that others use

Plain is what each runtime's own guide does: torch.onnx.export; its file in OpenVINO; torch.export and XNNPACK's
partitioner. Ours is what `hybridvit export --batch 1` writes. Both take one image of one size, and both are opened by
the same call with the same options; "as hybridvit opens it" is ours through `load_runner`, checks of the input
included. "without rewrites" is ours before the rewrites of `hybridvit/export/rewrites.py`.

Linux alone: after a warm-up the main thread is bound to one core and the runtimes' threads to the others, since the
kernel leaves threads that wake for microseconds where they were, two on one core.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np
import torch
from comparison import compare, report
from inference import to_onnx
from torch import nn

import hybridvit
from hybridvit.export.pipeline import export
from hybridvit.export.targets import EXPORTERS

FASTVIT, FASTERVIT = ("fastvit_t8", "fastvit_sa12", "fastvit_ma36"), ("fastervit_0", "fastervit_2")
Run = Callable[[], object]


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


def opened(target: str, content: bytes, weights: bytes, images: np.ndarray, threads: int) -> Run:
    """A file in its runtime, the same way for both sides."""
    if target == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # idle threads sleep: those of one session would spin while the next one is timed
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = {session.get_inputs()[0].name: images}
        return lambda: session.run(None, inputs)
    if target == "openvino":
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        core = openvino.Core()
        request = core.compile_model(core.read_model(content, weights), "CPU", settings).create_infer_request()
        return lambda: request.infer([images])
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    method, inputs_of_method = program.load_method("forward"), (torch.from_numpy(images),)
    return lambda keep=(program, content): method.execute(inputs_of_method)  # type: ignore[misc]


def contenders(name: str, target: str, threads: int, folder: Path) -> dict[str, Run]:
    """All ways to run one model in one runtime; their answers to one image agree within each side."""
    size = 256 if name.startswith("fastvit") else 224
    torch.manual_seed(0)
    images, exporter = torch.randn(1, 3, size, size), EXPORTERS[target]
    runs = {
        "theirs, plain": opened(target, written_plainly(target, theirs(name), images), b"", images.numpy(), threads)
    }
    model = hybridvit.create_model(name).eval()
    for label in ("ours, without rewrites", "ours"):
        path = folder / f"{name}-{len(runs)}{exporter.suffix}"
        with nullcontext() if label == "ours" else _no_rewrites(target):
            export(model, path, to=target, batch=1, image_size=(size, size))
        weights = b"".join(part.read_bytes() for part in exporter.companions(path))
        runs[label] = opened(target, path.read_bytes(), weights, images.numpy(), threads)
    runner = exporter.load_runner(path, threads=threads)
    runs["ours, as hybridvit opens it"] = partial(runner, images.numpy())
    return runs


@contextmanager
def _no_rewrites(target: str) -> Iterator[None]:
    with patch.object(type(EXPORTERS[target]), "rewrites", return_value=()):
        yield


def spread(threads: int) -> None:
    """Bind the main thread to the first core and the others, whatever runtime they belong to, to the rest."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    for task in map(int, os.listdir("/proc/self/task")):
        os.sched_setaffinity(task, cores[:1] if task == os.getpid() else cores[1:] or cores)


def measured(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One comparison per model and runtime."""
    torch.set_num_threads(arguments.threads)
    if "executorch" in arguments.runtimes:
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(arguments.threads)
    results = []
    clock = time.process_time if arguments.processor_time else time.perf_counter
    everywhere = os.sched_getaffinity(0)
    for name in arguments.names:
        for target in arguments.runtimes:
            with tempfile.TemporaryDirectory() as folder:
                runs = contenders(name, target, arguments.threads, Path(folder))
                for run in runs.values():
                    run()
                spread(arguments.threads)
                title = f"{name}, {target}, batch 1, {arguments.threads} threads"
                results.append(compare(title, runs, rounds=arguments.rounds, warmup=5, clock=clock))
                os.sched_setaffinity(0, everywhere)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runtimes = ["onnx", "openvino", "executorch"]
    parser.add_argument("--runtimes", nargs="+", choices=runtimes, default=runtimes)
    parser.add_argument("--names", nargs="+", default=[*FASTVIT, *FASTERVIT])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor_time", action="store_true", help="of the whole process; for one thread")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    given = parser.parse_args()
    report("deployment", cast(object, measured(given)), output=given.output)
