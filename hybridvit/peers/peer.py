"""One model of others, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Training = Literal["plain", "distilled", "more data"]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A published top-1 accuracy on ImageNet-1k."""

    top1: float  # in %
    image_size_px: int  # side
    training: Training  # "more data": pre-trained on more than ImageNet-1k, distilled as well or not
    source: str


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model of timm, and what is published of it."""

    name: str  # timm's with its tag, or an alias for one with options
    timm_name: str
    family: str
    accuracies: tuple[Accuracy, ...] = ()  # by image size; the first is the size it is compared at
    parameters_millions: float | None = None  # not folded
    options: Mapping[str, Any] = field(default_factory=dict)  # of timm.create_model
    is_new: bool = False  # in neither paper's tables

    @property
    def accuracy(self) -> Accuracy | None:
        """The accuracy at the size it is compared at; None where nothing is published."""
        return self.accuracies[0] if self.accuracies else None
