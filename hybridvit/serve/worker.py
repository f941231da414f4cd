"""The process of one model: it opens the file, computes batches that lie in shared memory, and ends with its parent."""

import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from hybridvit.card import ModelCard
from hybridvit.child import Child
from hybridvit.errors import HybridViTError
from hybridvit.export.runners import ExportedRunner, Outputs, Runner
from hybridvit.export.spec import GraphSpec
from hybridvit.loading import Device, open_runner
from hybridvit.serve.batch_size import Times, measured
from hybridvit.serve.batcher import Computed
from hybridvit.serve.overlays import offered, overlay

BYTES_PER_VALUE = 4  # float32


class ComputeFailed(Exception):
    """What the runtime raised for a batch, as text; the process lives on."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a model's process tells of its file."""

    card: ModelCard
    runtime: str
    spec: GraphSpec | None  # of an exported file
    metadata: Mapping[str, str] = field(default_factory=dict)
    overlays: tuple[str, ...] = ()  # that can be drawn of its inside


@dataclass(frozen=True, kw_only=True)
class _Compute:
    block: str  # the name of the shared memory that the batch lies in
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Measure:
    shape: tuple[int, ...]  # of one image
    sizes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Failed:
    told: str


@dataclass(frozen=True, kw_only=True)
class _Draw:
    overlay: str
    image: np.ndarray  # c h w


class Worker:
    """The parent's end. Its methods block, and are called by one thread at a time.

    All raise `hybridvit.child.ChildDied` where the process is gone. Opening raises as
    `hybridvit.loading.open_runner`.
    """

    def __init__(self, path: str, *, device: Device, threads: int | None, trust_changed: bool) -> None:
        self._block: SharedMemory | None = None
        self.child = Child(partial(_work, path, device, threads, trust_changed))
        try:
            self.opened: Opened = self.child.receive()
        except BaseException:
            self.child.end()
            raise

    def compute(self, images: Sequence[np.ndarray]) -> Computed:
        """The outputs for images (c h w, float32) of one shape. Raises HybridViTError for images that do not fit."""
        shape = (len(images), *images[0].shape)
        block = self._block_of(BYTES_PER_VALUE * int(np.prod(shape)))
        batch = np.ndarray(shape, np.float32, buffer=block.buf)
        for place, image in enumerate(images):
            batch[place] = image
        del batch  # or the block could not be closed
        outputs, ms = self._asked(_Compute(block=block.name, shape=shape))
        return Computed(outputs=outputs, ms=ms)

    def measure(self, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Times:
        """How long batches of each size take, as far as there is time to find out."""
        return self._asked(_Measure(shape=shape, sizes=sizes))

    def draw(self, overlay: str, image: np.ndarray) -> bytes:
        """A PNG of what an image (c h w, float32) makes of the inside of the model."""
        return self._asked(_Draw(overlay=overlay, image=image))

    def check(self) -> None:
        """Raise ChildDied if the process is gone."""
        if not self.child.is_alive:
            self.child.receive()

    def end(self) -> None:
        """End the process at once."""
        self.child.end()
        if self._block is not None:
            self._block.close()
            self._block.unlink()
            self._block = None

    def _asked(self, question: object) -> Any:
        self.child.send(question)
        answer = self.child.receive()
        if isinstance(answer, _Failed):
            raise ComputeFailed(answer.told)
        return answer

    def _block_of(self, num_bytes: int) -> SharedMemory:
        """Shared memory of at least that size; pictures of models that take any size can be larger than the last."""
        if self._block is None or self._block.size < num_bytes:
            if self._block is not None:
                self._block.close()
                self._block.unlink()
            self._block = SharedMemory(create=True, size=num_bytes)
        return self._block


def _work(path: str, device: Device, threads: int | None, trust_changed: bool, pipe: Connection) -> None:
    """What the process does until its parent closes the pipe; the parent alone is told to stop."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    runner = open_runner(path, device=device, threads=threads, trust_changed=trust_changed)
    exported = runner if isinstance(runner, ExportedRunner) else None
    pipe.send(
        Opened(
            card=runner.card,
            runtime=runner.runtime,
            spec=exported.spec if exported else None,
            metadata=exported.metadata if exported else {},
            overlays=() if exported else offered(runner),
        )
    )
    answering = _Answering(runner)
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        try:
            answer = answering(question)
        except HybridViTError as error:
            answer = error
        except Exception:
            answer = _Failed(told=traceback.format_exc())
        pipe.send(answer)


class _Answering:
    """The child's end."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._block: SharedMemory | None = None

    def __call__(self, question: object) -> object:
        if isinstance(question, _Compute):
            return self._compute(question)
        if isinstance(question, _Draw):
            return overlay(self._runner, question.overlay, question.image)
        assert isinstance(question, _Measure)
        return measured(self._runner, question.shape, question.sizes)

    def _compute(self, question: _Compute) -> tuple[Outputs, float]:
        if self._block is None or self._block.name != question.block:
            if self._block is not None:
                self._block.close()
            self._block = SharedMemory(name=question.block)
        began = time.perf_counter()
        outputs = self._runner(np.ndarray(question.shape, np.float32, buffer=self._block.buf))
        return outputs, (time.perf_counter() - began) * 1e3
