"""What a profile found, as plain values."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hybridvit.measure.conditions import Conditions
from hybridvit.measure.latency import Latency, median_interval
from hybridvit.measure.profile.operators import OperatorTime
from hybridvit.measure.profile.roof import Roof
from hybridvit.measure.profile.units import Depth

Mode = Literal["inference", "training"]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A median with its 95 % interval, in milliseconds."""

    median_ms: float
    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, times_ms: Iterable[float]) -> "Span":
        """The span of single times."""
        times = tuple(times_ms)
        low, high = median_interval(times)
        return cls(median_ms=statistics.median(times), low_ms=low, high_ms=high)

    @classmethod
    def of_latency(cls, latency: Latency) -> "Span":
        """The span of a candidate's turns."""
        low, high = latency.interval_ms
        return cls(median_ms=latency.median_ms, low_ms=low, high_ms=high)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one part of a model costs for one batch. What only training has is None in inference."""

    stage: str
    path: str
    name: str
    kind: str  # the class of the module
    forward: Span
    backward: Span | None = None
    share: float  # of the measured whole; in training the median over the steps
    multiply_adds: int  # of the forward pass
    parameters: int
    weight_bytes: int
    moved_bytes: int  # read and written by its operators in the forward pass, unfused
    saved_bytes: int | None = None  # kept for the backward pass
    gradient_bytes: int | None = None
    optimizer_bytes: int | None = None

    @property
    def total_ms(self) -> float:
        """Forward and backward."""
        return self.forward.median_ms + (self.backward.median_ms if self.backward else 0.0)

    @property
    def intensity(self) -> float:
        """FLOP per byte moved; a multiply-add is two FLOP."""
        return 2 * self.multiply_adds / self.moved_bytes if self.moved_bytes else 0.0

    @property
    def flop_per_s(self) -> float:
        """What its forward pass reaches."""
        return 2 * self.multiply_adds / (self.forward.median_ms / 1e3)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where time and memory of a model go: its parts in the order of execution, and what lies between them."""

    model: str
    mode: Mode
    depth: Depth
    batch: int
    image_size: tuple[int, int]
    threads: int
    device: str
    rounds: int  # calls of each part, or training steps
    costs: tuple[Cost, ...]
    whole: Span  # the model, or the step, measured as one
    others_ms: dict[str, float]  # of a training step what no part does: "loss", "optimizer"
    between_ms: float  # in none of these; below 0 where parts are slower alone than in the model
    measured_share: float  # of the whole, what parts and others took together; in training by step
    saved_between_bytes: int | None  # saved outside the parts
    roof: Roof
    conditions: Conditions
    operators: tuple[OperatorTime, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        found = asdict(self) | {"conditions": self.conditions.to_dict()}
        for each, cost in zip(found["costs"], self.costs, strict=True):
            each |= {
                "intensity": cost.intensity,
                "flop_per_s": cost.flop_per_s,
                "attainable_flop_per_s": self.roof.attainable(cost.intensity),
                "bound": self.roof.binds(cost.intensity),
            }
        return found
