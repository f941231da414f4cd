"""Open one candidate in this process, ready to be called."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.export.seal import Trust
from hybridvit.export.spec import Precision
from hybridvit.export.targets import EXPORTERS
from hybridvit.machine.allocator import page_faults
from hybridvit.machine.facts import bytes_in
from hybridvit.machine.memory import enough_memory
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.latency import Timed, Turn, timed, warm_up

if TYPE_CHECKING:
    from torch import Tensor, nn

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
DTYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class Opened:
    """A candidate that has been called until its time was stable; `turn` times it.

    `memory_mib` is what answering takes: by how much resident memory at its peak, while it is called, exceeds that
    before it was opened, its libraries being loaded; of a GPU, the most that was allocated. None where the system does
    not tell.
    """

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        if candidate.target:
            EXPORTERS[candidate.target].import_packages(EXPORTERS[candidate.target].runner_packages)
        else:
            import_module("torch")
        before = bytes_in(STATUS, "VmRSS")
        self._run, self._wait, self._peak = _open_torch(candidate) if not candidate.target else _open_file(candidate)
        _give_back_and_reset_peak()
        self.is_stable = warm_up(self._timed)
        self.is_pinned = pin_threads(candidate.threads) if candidate.device == "cpu" else False
        after = bytes_in(STATUS, "VmHWM")
        grown = None if before is None or after is None else (after - before) / 2**20
        self.memory_mib = self._peak() if candidate.device != "cpu" else grown

    def turn(self, calls: int) -> Timed:
        """The times and page faults of `calls` calls, after one that brings the weights back into the caches."""
        self._run()
        before = page_faults()
        times_ms = self._timed(calls)
        after = page_faults()
        return Timed(times_ms=times_ms, faults=None if before is None or after is None else after - before)

    @property
    def _timed(self) -> Turn:
        return timed(self._run, wait=self._wait)


Parts = tuple[Callable[[], object], Callable[[], None], Callable[[], float | None]]
"""A call, what waits for the device, and the peak of the device's memory in MiB."""


def _open_file(candidate: Candidate) -> Parts:
    path = Path(candidate.file)
    trust = Trust(changed=candidate.subject.trust_changed, foreign=True)
    runner = EXPORTERS[candidate.target].load_runner(path, threads=candidate.threads, trust=trust)
    shape = runner.spec.shape(candidate.batch, candidate.image_size)
    noise = np.random.default_rng(0)
    images: np.ndarray = noise.standard_normal(shape, dtype=np.float32)
    if runner.spec.pixels == "uint8":
        images = noise.integers(0, 256, shape, dtype=np.uint8)
    runner(np.zeros((candidate.batch, runner.spec.channels, *candidate.image_size)))  # refuses what it cannot take
    return lambda: runner.run(images), lambda: None, lambda: None


def _open_torch(candidate: Candidate) -> Parts:
    import torch

    from hybridvit.measure.subject import build

    torch.set_num_threads(candidate.threads)
    shape = (candidate.batch, candidate.subject.in_chans, *candidate.image_size)
    dtype, device = getattr(torch, DTYPES[candidate.precision]), torch.device(candidate.device)
    with enough_memory(shape):
        images = torch.randn(shape).to(device, dtype)
        model = build(candidate.subject, candidate.form, candidate.image_size)
        if candidate.form == "folded" and candidate.subject.kind == "timm":
            model = _norms_folded(model, images[:1].cpu().float())
        model = model.to(device, dtype)
        if device.type == "cuda":
            model, images = (
                model.to(memory_format=torch.channels_last),
                images.contiguous(memory_format=torch.channels_last),
            )
        if candidate.runtime == "torch-compile":
            model.compile()

    def run() -> object:
        with torch.inference_mode(), enough_memory(shape):
            return model(images)

    if device.type == "cuda":
        return run, torch.cuda.synchronize, lambda: torch.cuda.max_memory_allocated() / 2**20
    return run, lambda: None, lambda: None


def _norms_folded(model: "nn.Module", images: "Tensor") -> "nn.Module":
    """A peer with its BatchNorms inside the convolutions; as it was where torch.fx cannot follow it.

    Ours have none left. Other runtimes do this by themselves.
    """
    import torch
    from torch import nn
    from torch.fx.experimental.optimization import fuse
    from torch.utils._pytree import tree_leaves

    from hybridvit.models.timm_pyramid import TimmPyramid

    if not any(type(module) is nn.BatchNorm2d for module in model.modules()):
        return model
    if isinstance(model, TimmPyramid):  # whose own code asks for sizes
        model.maps = _norms_folded(model.maps, images)
        return model
    try:
        fused = fuse(model)
        with torch.inference_mode():
            pairs = zip(tree_leaves(model(images)), tree_leaves(fused(images)), strict=True)
            is_same = all(torch.allclose(one, other, rtol=1e-4, atol=1e-4) for one, other in pairs)
    except Exception:  # whatever a tracer stumbles over in other people's code
        return model
    return fused if is_same else model


def pin_threads(threads: int) -> bool:
    """Bind this thread to one core and the process's other threads to the rest of `threads` cores; whether it did.

    Linux alone, and only for as many cores as there are threads: its scheduler leaves threads that wake for
    microseconds where they were, two on one core. Cores that share a physical one are taken last.
    """
    if sys.platform != "linux" or threads > len(os.sched_getaffinity(0)):
        return False
    cores = _distinct_cores(sorted(os.sched_getaffinity(0)))[:threads]
    for task in map(int, os.listdir("/proc/self/task")):
        try:
            os.sched_setaffinity(task, cores[:1] if task == os.getpid() else cores[1:] or cores)
        except ProcessLookupError:  # a thread that ended meanwhile
            continue
    return True


def _distinct_cores(usable: Sequence[int]) -> list[int]:
    """These cores, first one of each physical core, then their siblings."""
    first: list[int] = []
    others: list[int] = []
    seen: set[str] = set()
    for core in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        physical = siblings.read_text(encoding="ascii").strip() if siblings.exists() else str(core)
        (others if physical in seen else first).append(core)
        seen.add(physical)
    return first + others


def _give_back_and_reset_peak() -> None:
    """Have the heap return what opening left behind, and count the peak from here, where the system can."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        CLEAR.write_text(RESET_PEAK, encoding="ascii")
