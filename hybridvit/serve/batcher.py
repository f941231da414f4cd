"""Requests in, batches out: what is waiting when the model becomes free is computed at once."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hybridvit.serve.refusals import BadRequest, Internal, NotFinite, Overloaded, Refusal

logger = logging.getLogger(__name__)

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The outputs for a batch, and how long the model took."""

    outputs: Outputs
    ms: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The outputs for the images of one request, in their order."""

    outputs: Outputs
    batch: int  # images that were computed at once with the first of them
    queue_ms: float
    compute_ms: float  # of the slowest batch, if they were several


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entry:
    """One image that waits."""

    image: np.ndarray  # c h w
    future: "asyncio.Future[_Part]"
    since: float


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one image of a batch got."""

    outputs: Outputs  # each with a first axis of one
    batch: int
    waited_s: float
    ms: float


Compute = Callable[[Sequence[np.ndarray]], Awaitable[Computed]]
"""Computes images (c h w) of one shape at once. Raises Refusal."""


class Batcher:
    """A bounded queue before a model that computes one batch at a time.

    An image of a request takes a place in the queue until it is computed, its client is gone or its time is up: then
    it is free at once. Images of one shape are computed together, `max_batch` of them at most, those that came first
    before others. While `ready` is not set, they wait. `watch` is told of each batch: images and milliseconds.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        max_batch: int,
        queue: int,
        max_wait_s: float = 0.0,
        ready: asyncio.Event | None = None,
        watch: Callable[[int, float], None] = lambda size, ms: None,
    ) -> None:
        self.max_batch = max_batch
        self._compute, self._queue, self._max_wait_s, self._watch = compute, queue, max_wait_s, watch
        self._waiting: dict[int, _Entry] = {}  # by number, in the order in which they came
        self._computed: list[_Entry] = []  # now
        self._numbers = itertools.count()
        self._came, self._ready = asyncio.Event(), ready
        self._closed: Refusal | None = None

    @property
    def num_waiting(self) -> int:
        """Images in the queue."""
        return len(self._waiting)

    @property
    def num_free(self) -> int:
        """Places in the queue."""
        return self._queue - len(self._waiting)

    def check(self, count: int = 1) -> None:
        """Raise the Refusal that `count` more images would get at once: Overloaded, or that of a closed queue."""
        if self._closed is not None:
            raise self._closed
        if count > self._queue:
            raise BadRequest(
                f"The request has {count} images, but at most {self._queue} can wait. Send fewer at once, or serve "
                "with a larger --queue."
            )
        if count > self.num_free:
            raise Overloaded(
                f"{self.num_waiting} of {self._queue} places in the queue are taken, and this request needs {count}. "
                "Ask again in a second, or serve with a larger --queue or more copies."
            )

    async def ask(self, images: np.ndarray) -> Answered:
        """The answer to images (n c h w). Raises Overloaded, NotFinite, or what the model's process raises.

        The caller sees to it that nobody waits for ever; a request that is cancelled leaves nothing in the queue.
        """
        self.check(len(images))
        loop = asyncio.get_running_loop()
        entries = {
            next(self._numbers): _Entry(image=image, future=loop.create_future(), since=loop.time()) for image in images
        }
        self._waiting |= entries
        self._came.set()
        try:
            parts = [await entry.future for entry in entries.values()]
        finally:
            for number, entry in entries.items():
                self._waiting.pop(number, None)
                entry.future.cancel()
                if entry.future.done() and not entry.future.cancelled():
                    entry.future.exception()  # it was seen: of several refused images only the first is reported
        return _joined(parts)

    async def run(self) -> None:
        """Compute batch after batch, until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting:
                if self._ready is not None:
                    await self._ready.wait()
                if self._max_wait_s:
                    await self._for_company()
                if batch := self._take():
                    self._computed = batch
                    await self._answer(batch)
                    self._computed = []

    def close(self, refusal: Refusal) -> None:
        """Refuse everything that waits or is computed, and all that comes."""
        self._closed = refusal
        for entry in (*self._computed, *self._waiting.values()):
            if not entry.future.done():
                entry.future.set_exception(refusal)
        self._waiting.clear()

    async def _for_company(self) -> None:
        """Wait until a batch is full, or the first image has waited for as long as one may."""
        since = min((entry.since for entry in self._waiting.values()), default=0.0)
        until = since + self._max_wait_s
        try:
            async with asyncio.timeout_at(until):
                while self.num_waiting < self.max_batch:
                    await self._came.wait()
                    self._came.clear()
        except TimeoutError:
            return

    def _take(self) -> list[_Entry]:
        """The next images of one shape, out of the queue."""
        numbers: list[int] = []
        for number, entry in self._waiting.items():
            if not numbers or entry.image.shape == self._waiting[numbers[0]].image.shape:
                numbers.append(number)
            if len(numbers) == self.max_batch:
                break
        return [self._waiting.pop(number) for number in numbers]

    async def _answer(self, batch: list[_Entry]) -> None:
        began = asyncio.get_running_loop().time()
        try:
            computed = await self._compute([entry.image for entry in batch])
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else _fault(error)
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(refusal)
            return
        self._watch(len(batch), computed.ms)
        for place, entry in enumerate(batch):
            if not entry.future.done():
                outputs = {name: output[place : place + 1] for name, output in computed.outputs.items()}
                entry.future.set_result(
                    _Part(outputs=outputs, batch=len(batch), waited_s=began - entry.since, ms=computed.ms)
                )


def _fault(error: Exception) -> Refusal:
    logger.error("a batch was not computed", exc_info=error)
    return Internal("The batch of this picture could not be computed. The server's log tells why.")


def _joined(parts: list[_Part]) -> Answered:
    """The answers to the images of one request. Raises NotFinite."""
    outputs = parts[0].outputs
    if len(parts) > 1:
        outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in outputs}
    broken = [name for name, each in outputs.items() if each.dtype.kind == "f" and not np.isfinite(each).all()]
    if broken:
        raise NotFinite(
            f"The model's output '{broken[0]}' for this picture has numbers that are not finite. Check the weights, "
            "or export the file with another --precision."
        )
    return Answered(
        outputs=outputs,
        batch=parts[0].batch,
        queue_ms=max(part.waited_s for part in parts) * 1e3,
        compute_ms=max(part.ms for part in parts),
    )
