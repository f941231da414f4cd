"""What the loop does not know: the model, its images, its loss, its metrics and what is kept of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn

from hybridvit.data.images import Images
from hybridvit.training.classify.final_check import FinalCheck
from hybridvit.training.record.progress import Watch


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where in the training a loss is asked for."""

    step: int  # optimizer steps done
    total_steps: int
    averaged: nn.Module | None  # the moving average of the weights, in eval mode; None if the recipe keeps none


class Task(ABC):
    """A thing to learn. It is built once per process; `model` is then trained by the loop on `images`."""

    model: nn.Module
    images: Images  # to train on
    headline: str  # the metric, higher is better, that decides between raw and averaged weights
    watch: Watch | None = None  # told after each batch of a validation

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """JSON values that must be the same on resume: classes, fingerprint of the images."""

    @abstractmethod
    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """The mean loss of a micro-batch. All randomness from the global generators: the loop seeds them before.

        `images`: b c h w, may be changed in place; `labels`: b.
        """

    @abstractmethod
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Metrics over all validation images and ranks, among them `headline`. Called by every rank."""

    @abstractmethod
    def keep(self, model: nn.Module, path: Path) -> None:
        """Write the trained model with all that it takes to use it."""

    @abstractmethod
    def check_folded(self, model: nn.Module) -> FinalCheck:
        """A trained model against its folded form, on all validation images and ranks. Called by every rank.

        Raises FoldError for a model that cannot be folded exactly.
        """

    @property
    @abstractmethod
    def facts(self) -> Sequence[tuple[str, str]]:
        """What the report says about the model and its images: (title, text)."""

    @abstractmethod
    def picture(self, path: str) -> Path | Image | None:
        """The validation image of that name, to look at; None if it cannot be had."""

    @abstractmethod
    def close(self) -> None:
        """End the worker processes of validation, if any."""
