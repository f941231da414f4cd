"""What each stage of a model costs: FasterViT's Figure S.4 for any of our models, on this machine."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.machine.facts import usable_cores
from hybridvit.machine.memory import enough_memory
from hybridvit.measure.conditions import Conditions
from hybridvit.measure.counts import count_each
from hybridvit.measure.profile.parts import check_parts, measure_parts
from hybridvit.measure.profile.units import Call, Unit
from hybridvit.measure.subject import build, find_subject
from hybridvit.models.backbone import Backbone

BYTES = 4  # of a number in fp32


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One part of a model, folded, in PyTorch in fp32, for one batch; times in milliseconds."""

    stage: str  # "stem", "1" to "4", "head"
    median_ms: float
    low_ms: float  # 95 % interval of the median
    high_ms: float
    multiply_adds: int
    parameters: int
    activation_bytes: int  # what its convolutions and matrix products write

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StageProfile:
    """The parts in the order of execution, and what else went on while they were timed."""

    costs: tuple[StageCost, ...]
    conditions: Conditions

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"stages": [cost.to_dict() for cost in self.costs], "conditions": self.conditions.to_dict()}


def profile_stages(
    model: str,
    *,
    batch: int = 1,
    image_size: tuple[int, int] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    rounds: int = 50,
) -> StageProfile:
    """Time the parts of `model` (a name of ours, or a checkpoint) against each other, each on its own input.

    `image_size` is (height, width) in pixels, by default the model's own. Raises UsageError for timm's models and
    exported files, whose parts are not known, and for models that are more than a backbone with a classifier.
    """
    subject = find_subject(model)
    check_parts(subject, batch=batch, rounds=rounds, threads=threads, device=device)
    size = image_size or subject.image_size
    folded = build(subject, "folded", size)
    if not isinstance(folded, Backbone):
        raise UsageError(
            f"{model} has a head of its own, and Figure S.4 is of a backbone with a classifier. Use "
            f"`hybridvit profile {model} --depth stage`."
        )
    shape = (batch, folded.in_chans, *size)
    torch.set_num_threads(threads or usable_cores())
    with torch.inference_mode(), enough_memory(shape):
        images = torch.randn(shape).to(device)
        folded.check_input(images)
        calls = list(_calls(folded.to(device), images))
        times, conditions = measure_parts(calls, {}, device=device, rounds=rounds)
    counts = count_each({call.unit.stage: call.unit.module for call in calls}, images)
    costs = tuple(
        StageCost(
            stage=name,
            median_ms=latency.median_ms,
            low_ms=latency.interval_ms[0],
            high_ms=latency.interval_ms[1],
            multiply_adds=counts[name].multiply_adds,
            parameters=counts[name].parameters,
            activation_bytes=counts[name].activations * BYTES,
        )
        for name, latency in times.items()
    )
    return StageProfile(costs=costs, conditions=conditions)


def _calls(model: Backbone, images: Tensor) -> Iterator[Call]:
    """The parts in the order of execution, with what each is given."""
    x = images
    head = nn.Sequential(model.expand, model.head)
    names = ("stem", *(str(number) for number in range(1, len(model.stages) + 1)), "head")
    for name, part in zip(names, (model.stem, *model.stages, head), strict=True):
        yield Call(unit=Unit(stage=name, path=name, module=part), inputs=(x,))
        x = part(x)
