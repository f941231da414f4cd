"""One model of a service: its process, the queue before it, and what is known of it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.card import ModelCard
from hybridvit.child import ChildDied
from hybridvit.digest import sha256_of
from hybridvit.errors import CheckpointError, HybridViTError, ProcessLost, UsageError, nearest
from hybridvit.loading import Device
from hybridvit.scores import Result
from hybridvit.serve.batch_size import SIZES, Times, chosen
from hybridvit.serve.batcher import Answered, Batcher, Computed, Outputs
from hybridvit.serve.limits import Limits
from hybridvit.serve.refusals import BadRequest, Internal, Overloaded, Refusal, Stopping, WorkerLost
from hybridvit.serve.signature import Signature, signature_of
from hybridvit.serve.uploads import prepare
from hybridvit.serve.worker import ComputeFailed, Opened, Worker
from hybridvit.task import find_task

logger = logging.getLogger(__name__)
Done = TypeVar("Done")

PAUSES_S = (0.5, 1.0, 2.0)  # before a process that was lost is started again
MOST_CRASHES, WITHIN_S = 3, 600.0
LOOK_EVERY_S = 0.2  # whether the process is still there
MOST_DRAWN = 4  # overlays that are waited for at once: each takes as long as several answers
STUCK_S = 60.0  # for a batch at least, before the process is ended; nobody waits longer than the deadline


@dataclass(frozen=True, kw_only=True)
class Model:
    """A file to serve, under a name."""

    name: str
    path: str
    device: Device = "auto"
    threads: int | None = None
    trust_changed: bool = False


class Served:
    """A model that answers. `card`, `spec`, `batch_times` and what else is known of it are there once it is started."""

    opened: Opened
    spec: Signature
    sha256: str

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.name, self.limits = model, model.name, limits
        self.batch_times: Times = {}
        self.example: Result | None = None  # an answer, where the file gives answers
        self.max_batch = 1
        self.trouble = "it is being opened"  # why it is not ready; empty: it is
        self.lost: ProcessLost | None = None  # for good
        self._num_drawn = 0
        self._stuck_s = max(STUCK_S, 2 * limits.deadline)
        self.on_lost: Callable[[ProcessLost], None] = lambda error: None
        self.on_restart: Callable[[], object] = lambda: None
        self.on_batch: Callable[[int, float], None] = lambda size, ms: None
        self._crashes: deque[float] = deque(maxlen=MOST_CRASHES)
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"model-{model.name}")
        self._worker: Worker | None = None

    @property
    def card(self) -> ModelCard:
        """Of the model."""
        return self.opened.card

    @property
    def pid(self) -> int:
        """Of the process that computes; 0 while there is none."""
        return self._worker.child.pid if self._worker is not None else 0

    @property
    def is_ready(self) -> bool:
        """Whether it answers now."""
        return not self.trouble

    @property
    def num_waiting(self) -> int:
        """Images in the queue."""
        return self._batcher.num_waiting

    async def open(self) -> None:
        """Open the file in a process of its own, and try it on an image.

        Raises as `hybridvit.loading.open_runner`, and ProcessLost where the process dies of it.
        """
        try:
            await self._open()
        except ChildDied as error:
            raise ProcessLost(f"The process that opened {self.model.path} {error}.") from error
        except ComputeFailed as error:
            raise CheckpointError(
                f"The runtime of {self.model.path} failed on its first image: {str(error).splitlines()[-1]}."
            ) from error
        path = Path(self.model.path)
        self.sha256 = sha256_of(path) if path.is_file() else self.opened.metadata.get("hybridvit.sha256", "")

    async def start(self) -> None:
        """Measure the best size of batches, if that is to be measured, and answer from now on."""
        self.max_batch = await self._best_batch()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._batcher = Batcher(
            self._compute,
            max_batch=self.max_batch,
            queue=self.limits.queue,
            max_wait_s=self.limits.max_wait_ms / 1e3,
            ready=self._is_open,
            watch=lambda size, ms: self.on_batch(size, ms),
        )
        self._tasks = [asyncio.create_task(self._batcher.run()), asyncio.create_task(self._watch())]
        self.trouble = ""

    async def stop(self) -> None:
        """End the process; what is still waiting is refused."""
        self.refuse(Stopping("The server is stopping. Ask another one, or this one again when it is back."))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.child.kill()  # the thread may wait for its answer
            await self._in_thread(worker.end)
        self._thread.shutdown()

    def kill(self) -> None:
        """End the process at once, whatever else goes on, because this one ends too."""
        if self._worker is not None:
            with suppress(ValueError, BufferError, OSError):
                self._worker.end()

    def refuse(self, refusal: Refusal) -> None:
        """Refuse all that waits, and all that comes."""
        self.trouble = self.trouble or str(refusal)
        if self._tasks:
            self._batcher.close(refusal)

    def check(self, count: int = 1) -> None:
        """Raise the Refusal that `count` more images would get at once."""
        self._batcher.check(count)

    async def ask(self, images: np.ndarray) -> Answered:
        """The answer to images (n c h w, float32, prepared as the card says), with the time that it took.

        The caller sees to it that nobody waits for ever.

        Raises Overloaded, WorkerLost, NotFinite, Stopping; BadRequest for images of another shape than the model takes.
        """
        return await self._batcher.ask(images)

    async def overlay(self, name: str, image: np.ndarray) -> bytes:
        """A PNG of what an image (c h w) makes of the inside of the model, one of `opened.overlays`.

        Raises BadRequest for another, Overloaded, WorkerLost, Internal.
        """
        known = self.opened.overlays
        if name not in known:
            fix = f"{nearest(name[:40], known)}" if known else "It has none: only classifiers in PyTorch have"
            raise BadRequest(f"The model '{self.name}' has no overlay '{name[:40]}'. {fix}.")
        if self._num_drawn >= MOST_DRAWN:
            raise Overloaded(f"{self._num_drawn} overlays are waited for. Ask again in a second.")
        self._num_drawn += 1
        try:
            return await self._by_process(lambda worker: worker.draw(name, image))
        finally:
            self._num_drawn -= 1

    def results(self, outputs: Outputs, frames: Sequence[Frame | None], most: int | None = None) -> Sequence[Result]:
        """What outputs say of pictures. Raises BadRequest for a file that gives no such answer."""
        try:
            return find_task(self.card.task).results(outputs, frames, self.card, most=most)
        except UsageError as error:
            raise BadRequest(f"The model '{self.name}' {error}") from error

    async def _open(self) -> None:
        """A new process, tried on one image."""
        model = self.model
        self._worker = await self._in_thread(
            partial(Worker, model.path, device=model.device, threads=model.threads, trust_changed=model.trust_changed)
        )
        self.opened = self._worker.opened
        prepared = await self._in_thread(prepare, _grey_picture(self._shape[1:]), self.card)
        computed = await self._in_thread(self._worker.compute, [prepared.image])
        self.spec = signature_of(self.opened, computed.outputs)
        try:
            (self.example,) = find_task(self.card.task).results(computed.outputs, [prepared.frame], self.card)
        except UsageError as error:  # such as of features, which are still asked for as tensors
            logger.warning("%s %s", self.model.path, error)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Of one image (c h w)."""
        spec, preprocessing = self.opened.spec, self.card.preprocessing
        size = spec.image_size if spec is not None else preprocessing.image_size
        return (spec.channels if spec is not None else len(preprocessing.mean), *size)

    async def _best_batch(self) -> int:
        fixed = self.opened.spec.batch if self.opened.spec is not None else None
        if fixed is not None:
            return fixed  # a graph of one size of batch is asked with exactly that
        if self.limits.max_batch != "auto":
            return self.limits.max_batch
        assert self._worker is not None
        sizes = tuple(size for size in SIZES if size <= self.limits.queue)
        self.batch_times = await self._in_thread(self._worker.measure, self._shape, sizes)
        return chosen(self.batch_times)

    async def _compute(self, images: Sequence[np.ndarray]) -> Computed:
        return await self._by_process(lambda worker: worker.compute(images))

    async def _by_process(self, ask: Callable[[Worker], Done]) -> Done:
        """What the process answers. Raises WorkerLost, Internal, BadRequest."""
        worker = self._worker
        if worker is None:
            raise WorkerLost(f"The process of the model '{self.name}' is gone. Ask again in a second.")
        stuck = asyncio.get_running_loop().call_later(self._stuck_s, worker.child.kill)
        try:
            return await self._in_thread(ask, worker)
        except ChildDied as error:
            self._crashed(error)
            raise WorkerLost(
                f"The process of the model '{self.name}' {error} while it computed this picture. It is started again; "
                "ask again in a second."
            ) from error
        except ComputeFailed as error:
            logger.error("%s: a batch was not computed: %s", self.name, error)
            raise Internal(
                "The model's runtime failed on the batch of this picture. The server's log tells why."
            ) from error
        except HybridViTError as error:
            raise BadRequest(str(error)) from error
        finally:
            stuck.cancel()

    async def _watch(self) -> None:
        """Notice a process that ends while nothing is computed."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if (worker := self._worker) is not None:
                try:
                    await self._in_thread(worker.check)
                except ChildDied as error:
                    self._crashed(error)

    def _crashed(self, error: ChildDied) -> None:
        """Start the process again, or give up; told of a crash twice, it acts once."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self.trouble = f"its process {error}"
        self._is_open.clear()
        self._tasks.append(asyncio.create_task(self._restart(worker, error)))

    async def _restart(self, worker: Worker, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        await self._in_thread(worker.end)
        while True:
            self.trouble = f"its process {error}"
            logger.error("the process of the model '%s' %s", self.name, error)
            self._crashes.append(loop.time())
            recent = [when for when in self._crashes if loop.time() - when <= WITHIN_S]
            if len(recent) == MOST_CRASHES:
                self._give_up(error)
                return
            await asyncio.sleep(PAUSES_S[len(recent) - 1])
            self.on_restart()
            try:
                await self._open()
                break
            except (ChildDied, ComputeFailed, HybridViTError) as another:
                error = another
                opened, self._worker = self._worker, None
                if opened is not None:
                    await self._in_thread(opened.end)
        self.trouble = ""
        self._is_open.set()
        logger.warning("the model '%s' is ready again, in process %d", self.name, self.pid)

    def _give_up(self, error: Exception) -> None:
        self.lost = ProcessLost(
            f"The process of the model '{self.name}' was lost {MOST_CRASHES} times within {WITHIN_S / 60:.0f} minutes: "
            f"it {error}. Check the file with `hybridvit predict {self.model.path} PICTURE`."
        )
        self.refuse(WorkerLost(f"The process of the model '{self.name}' is gone for good: it {error}."))
        self.on_lost(self.lost)

    async def _in_thread(self, do: Callable[..., Done], *arguments: object) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)


def _grey_picture(size: tuple[int, int]) -> bytes:
    """A PNG of that height and width."""
    file = BytesIO()
    Image.new("RGB", (size[1], size[0]), "grey").save(file, "PNG")
    return file.getvalue()
