"""Who takes answers, one after the other; and an answer as a row."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

from hybridvit.errors import ImageDecodeError
from hybridvit.predictor import Answer


class Sink(AbstractContextManager["Sink"], ABC):
    """Takes answers. What it writes is in its place when it is left, and only if it is left without an exception."""

    @abstractmethod
    def take(self, answer: Answer) -> None:
        """The next answer."""


def row_of(answer: Answer) -> dict[str, Any]:
    """JSON values: the picture, of a video the frame and its time, and the result's own values, or "error"."""
    shown, result = answer.shown, answer.result
    row: dict[str, Any] = {"image": str(shown.source)}
    if shown.frame is not None and shown.seconds is not None:
        row |= {"frame": shown.frame, "seconds": round(shown.seconds, 6)}
    return row | ({"error": str(result)} if isinstance(result, ImageDecodeError) else result.to_dict())
