"""From the bytes of a request to prepared images: counted as they come, decoded by a few threads."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image
from starlette.requests import Request

from hybridvit.batch import Frame
from hybridvit.card import ModelCard
from hybridvit.data.decode import MAX_PIXELS, size_of
from hybridvit.data.file_kind import HEAD_BYTES, image_format, is_readable
from hybridvit.data.preprocess import frame_of, opened, preprocess
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.scores import Result
from hybridvit.serve.limits import BODY_S, CHUNK_S, Limits
from hybridvit.serve.refusals import (
    BadRequest,
    DamagedImage,
    EncodedBody,
    NotAnImage,
    Overloaded,
    Refusal,
    TooLarge,
    TooManyPixels,
    TooSlow,
)
from hybridvit.task import find_task

MOST_SHOWN_PX = 2048  # of the longer side of a picture that is answered with
BODIES_HELD = 64  # of the largest size: more bytes than that are not held at once
FASTEST = 1  # of PNG's levels of compression
SMALL_BYTES, SMALL_PIXELS = 16_384, 128 * 128  # what is decoded sooner than it is handed to a thread

Done = TypeVar("Done")


class ClientGone(Exception):
    """Whoever asked does not wait for the answer."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A picture as a model takes it."""

    image: np.ndarray  # c h w
    frame: Frame
    size: tuple[int, int]  # width and height of the upright picture
    ms: float  # that decoding and preparing took

    @property
    def images(self) -> np.ndarray:
        """As a batch of one."""
        return self.image[None]


class Bodies:
    """Reads the bodies of requests, with a limit for each and for all that are held at once."""

    def __init__(self, limits: Limits) -> None:
        self._most_bytes, self._most_held_bytes = limits.max_bytes, BODIES_HELD * limits.max_bytes
        self._held_bytes = 0

    async def read(self, request: Request) -> bytes:
        """The body. Raises EncodedBody, TooLarge, TooSlow, Overloaded, ClientGone.

        What is held counts until `release`.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise EncodedBody(f"The body has the content encoding '{encoding[:40]}'. Send the file's own bytes.")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most_bytes:
            raise self._too_large()
        body = bytearray()
        loop = asyncio.get_running_loop()
        ends = loop.time() + BODY_S
        try:
            async with asyncio.timeout(CHUNK_S) as timer:
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    self._take(body, message.get("body", b""))
                    if not message.get("more_body", False):
                        return bytes(body)
                    timer.reschedule(min(ends, loop.time() + CHUNK_S))
        except TimeoutError:
            self.release(len(body))
            raise TooSlow(
                f"The body did not come within {BODY_S:g} seconds, or no part of it for {CHUNK_S:g}. Send it faster."
            ) from None
        except BaseException:
            self.release(len(body))
            raise

    def release(self, num_bytes: int) -> None:
        """A body of that size is no longer held."""
        self._held_bytes -= num_bytes

    def _take(self, body: bytearray, part: bytes) -> None:
        if len(body) + len(part) > self._most_bytes:
            raise self._too_large()
        if self._held_bytes + len(part) > self._most_held_bytes:
            raise Overloaded("The bodies of other requests fill the memory that there is for them. Ask again.")
        self._held_bytes += len(part)
        body += part

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The body is larger than {self._most_bytes:,} bytes. Shrink the picture, or serve with a larger "
            "--max_bytes."
        )


class DecodePool:
    """A few threads that decode, and a bounded number of pictures that wait for them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most, self._count = limits.decode_threads + limits.queue, 0
        self._threads = ThreadPoolExecutor(limits.decode_threads, thread_name_prefix="decode")

    async def prepare(self, body: bytes, card: ModelCard) -> Prepared:
        """As `prepare`: a small picture at once, another in one of the threads. Raises Overloaded too."""
        most = self._limits.max_pixels
        if len(body) <= SMALL_BYTES and math.prod(card.preprocessing.image_size) <= SMALL_PIXELS:
            with suppress(TooManyPixels):  # the head tells the size, before anything is decoded
                return prepare(body, card, max_pixels=min(most, SMALL_PIXELS))
        return await self.do(partial(prepare, body, card, max_pixels=most))

    async def draw(self, body: bytes, card: ModelCard, result: Result) -> bytes:
        """The picture in `body` with an answer on it, as PNG."""
        return await self.do(partial(drawn, body, card, result, max_pixels=self._limits.max_pixels))

    async def do(self, work: Callable[[], Done]) -> Done:
        """Do what takes a processor's time in one of the threads. Raises Overloaded where too much waits for them."""
        if self._count >= self._most:
            raise Overloaded(
                f"{self._count} pictures wait to be decoded. Ask again in a second, or serve with more "
                "--decode_threads or copies."
            )
        self._count += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        return await future

    def close(self) -> None:
        """End the threads when they are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: "asyncio.Future[Done]") -> None:
        self._count -= 1


def prepare(body: bytes, card: ModelCard, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Decode the bytes of a picture and prepare it as the card says.

    Raises NotAnImage, TooManyPixels, DamagedImage; BadRequest for a picture that the model's task cannot be shown.
    """
    began = time.perf_counter()
    picture = _upright(body, card, max_pixels)
    try:
        shown = find_task(card.task).shown(picture, card.preprocessing, "")
    except UsageError as error:
        raise BadRequest(str(error)) from error
    image, frame = shown or (preprocess(picture, card.preprocessing), frame_of(picture.size, card.preprocessing))
    return Prepared(image=image, frame=frame, size=picture.size, ms=(time.perf_counter() - began) * 1e3)


def drawn(body: bytes, card: ModelCard, result: Result, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The picture in `body` with an answer on it, as PNG of at most MOST_SHOWN_PX a side. Raises as `prepare`."""
    picture = result.draw(_upright(body, card, max_pixels))
    picture.thumbnail((MOST_SHOWN_PX, MOST_SHOWN_PX))
    file = BytesIO()
    picture.save(file, "PNG", compress_level=FASTEST)
    return file.getvalue()


def _upright(body: bytes, card: ModelCard, max_pixels: int) -> Image.Image:
    try:
        return opened(body, card.preprocessing, max_pixels=max_pixels, name="the picture").image
    except ImageDecodeError as error:
        raise _reason(body, max_pixels)(str(error)) from error


def _reason(body: bytes, max_pixels: int) -> type[Refusal]:
    """The kind of refusal of bytes that were not decoded."""
    kind = image_format(body[:HEAD_BYTES])
    if kind is None or not is_readable(kind):
        return NotAnImage
    try:
        (width, height), _ = size_of(body)
    except ImageDecodeError:
        return DamagedImage
    return TooManyPixels if width * height > max_pixels else DamagedImage


async def while_connected(request: Request, work: Awaitable[Done]) -> Done:
    """The result of `work`, which is cancelled when the client goes. Raises ClientGone then.

    To be called when the body is read: what the server says next is that the client is gone.
    """
    working = asyncio.current_task()
    assert working is not None, "requests are tasks"
    left = False

    def leave(watching: "asyncio.Task[None]") -> None:
        nonlocal left
        if not watching.cancelled():
            left = True
            working.cancel()

    watching = asyncio.create_task(_gone(request))
    watching.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if left and not working.uncancel():
            raise ClientGone from None
        raise
    finally:
        watching.remove_done_callback(leave)
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
