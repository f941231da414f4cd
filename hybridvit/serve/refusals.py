"""Why a request gets no answer: each reason has a code, an HTTP status, and a sentence with value, rule and fix."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar


class Refusal(Exception):
    """The base. `close` is whether the connection ends with it, because the rest of a body is not wanted."""

    status: ClassVar[int]
    code: ClassVar[str]
    close: ClassVar[bool] = False
    retry: ClassVar[bool] = False  # whether the same request may be answered a second later

    @property
    def headers(self) -> dict[str, str]:
        """Of the response."""
        return ({"Connection": "close"} if self.close else {}) | ({"Retry-After": "1"} if self.retry else {})


class BadRequest(Refusal):
    """A value that is not allowed."""

    status, code = 400, "bad_request"


class NoSuchModel(Refusal):
    """A model that is not served."""

    status, code = 404, "no_such_model"


class TooSlow(Refusal):
    """A body that comes too slowly."""

    status, code, close = 408, "too_slow", True


class TooLarge(Refusal):
    """A body of too many bytes."""

    status, code, close = 413, "too_large", True


class NotAnImage(Refusal):
    """A body that is no picture."""

    status, code, close = 415, "not_an_image", True


class EncodedBody(Refusal):
    """A body that would have to be decompressed."""

    status, code, close = 415, "encoded_body", True


class DamagedImage(Refusal):
    """A picture that cannot be decoded to the right pixels."""

    status, code = 422, "damaged_image"


class TooManyPixels(Refusal):
    """A picture that would fill the memory."""

    status, code = 422, "too_many_pixels"


class NotFinite(Refusal):
    """An answer with numbers that are none."""

    status, code = 500, "not_finite"


class Internal(Refusal):
    """A fault of this program; the log has it under the request's id."""

    status, code = 500, "internal"


class Overloaded(Refusal):
    """The queue is full."""

    status, code, retry, close = 503, "overloaded", True, True


class WorkerLost(Refusal):
    """The process that computes has ended."""

    status, code, retry = 503, "worker_lost", True


class Stopping(Refusal):
    """The server is about to end."""

    status, code, retry, close = 503, "stopping", True, True


class Deadline(Refusal):
    """The answer took too long."""

    status, code = 504, "deadline"


EVERY: tuple[type[Refusal], ...] = tuple(Refusal.__subclasses__())
"""All of them, for documentation and tests."""


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Time for an answer: a block that takes longer is cancelled. Raises Deadline then."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Deadline(
            f"The answer took longer than {seconds:g} seconds. Ask again, or serve with a longer --deadline."
        ) from None
