"""What each stage of a model costs: FasterViT's Figure S.4 for any of our models, on this machine."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.machine.facts import check_threads, usable_cores
from hybridvit.machine.memory import enough_memory
from hybridvit.measure.counts import count_each
from hybridvit.measure.latency import check_rounds
from hybridvit.measure.plan import check_device
from hybridvit.measure.profile.parts import measure_parts
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

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def profile_stages(
    model: str,
    *,
    batch: int = 1,
    image_size: tuple[int, int] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    rounds: int = 50,
) -> list[StageCost]:
    """Time the parts of `model` (a name of ours, or a checkpoint) against each other, each on its own input.

    `image_size` is (height, width) in pixels, by default the model's own. Raises UsageError for timm's models and
    exported files, whose parts are not known.
    """
    check_rounds(rounds)
    check_threads(threads)
    subject = find_subject(model)
    if subject.kind not in ("ours", "weights"):
        raise UsageError(f"{model} is no model of hybridvit in PyTorch, whose stages are known. See `hybridvit list`.")
    check_device(device)
    size = image_size or subject.image_size
    folded = build(subject, "folded", size)
    assert isinstance(folded, Backbone)
    shape = (batch, folded.in_chans, *size)
    torch.set_num_threads(threads or usable_cores())
    with torch.inference_mode(), enough_memory(shape):
        images = torch.randn(shape).to(device)
        folded.check_input(images)
        calls = list(_calls(folded.to(device), images))
        times = measure_parts(calls, {}, device=device, rounds=rounds)
    counts = count_each({call.unit.stage: call.unit.module for call in calls}, images)
    return [
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
    ]


def _calls(model: Backbone, images: Tensor) -> Iterator[Call]:
    """The parts in the order of execution, with what each is given."""
    x = images
    head = nn.Sequential(model.expand, model.head)
    names = ("stem", *(str(number) for number in range(1, len(model.stages) + 1)), "head")
    for name, part in zip(names, (model.stem, *model.stages, head), strict=True):
        yield Call(unit=Unit(stage=name, path=name, module=part), inputs=(x,))
        x = part(x)
