"""What a service takes at most: one value, from the command line to each request."""

from dataclasses import dataclass
from typing import Literal

from hybridvit.data.decode import MAX_PIXELS
from hybridvit.errors import UsageError

HEADER_S, CHUNK_S, BODY_S = 10.0, 10.0, 30.0
"""The longest that a header may take to come, the next part of a body, and a body in all."""
DRAIN_S = 7.0  # after a signal to stop, for requests that are there
MOST_ENTRIES = 1000  # that an answer can be asked to have


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What each model of a service may be asked for.

    Args:
        max_batch: pictures that are computed at once; auto measures at the start what is fastest.
        max_wait_ms: how long a free model waits for more pictures to compute at once; 0 never waits.
        queue: pictures of a model that may wait; more are refused.
        deadline: seconds that an answer may take.
        max_bytes: of a request's body.
        max_pixels: of a picture.
        decode_threads: threads that decode pictures.
    """

    max_batch: int | Literal["auto"] = "auto"
    max_wait_ms: float = 0.0
    queue: int = 64
    deadline: float = 30.0
    max_bytes: int = 10_000_000
    max_pixels: int = MAX_PIXELS
    decode_threads: int = 2

    def check(self) -> None:
        """Raise UsageError for a number that nothing can be served with."""
        least = {"queue": 1, "deadline": 0.001, "max_bytes": 1, "max_pixels": 1, "decode_threads": 1, "max_wait_ms": 0}
        if self.max_batch != "auto":
            least["max_batch"] = 1
        for name, smallest in least.items():
            if not getattr(self, name) >= smallest:
                raise UsageError(
                    f"--{name} is {getattr(self, name)}, but it must be at least {smallest}. Leave it out for the "
                    "default."
                )
        if self.max_batch != "auto" and self.max_batch > self.queue:
            raise UsageError(
                f"--max_batch is {self.max_batch}, but only --queue {self.queue} pictures may wait, so that many are "
                f"never computed at once. Use --queue {self.max_batch} or more."
            )


DEFAULTS = Limits()
