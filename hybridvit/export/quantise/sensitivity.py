"""Which layers suffer most from 8-bit integers: one at a time, in PyTorch, whatever the runtime will be."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridvit.export.graph import DeployedModel
from hybridvit.export.watched import watched

LEVELS = 255  # steps of an 8-bit scale
LAYERS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Suffering:
    """A layer, and what rounding it alone does to the model."""

    name: str  # of the module inside the deployed model
    change: float  # root mean square of the change of the outputs / their standard deviation


@torch.no_grad()
def rank_layers(model: DeployedModel, images: Tensor) -> tuple[Suffering, ...]:
    """The layers that `images` (as the graph takes them) pass through, the most sensitive first.

    A layer is rounded as the targets round it: its weights to signed integers with a scale per output channel, its
    input to the 256 values between the least and the largest that the images cause.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def see(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        low, high = inputs[0].amin().item(), inputs[0].amax().item()
        before = ranges.get(name, (0.0, 0.0))  # zero is always a value: padding needs it
        ranges[name] = min(low, before[0]), max(high, before[1])

    with watched(model, see, *LAYERS):
        expected = _first(model, images)
    spread = expected.std().clamp_min(torch.finfo(expected.dtype).tiny)
    ranking = []
    for name, (low, high) in ranges.items():
        with _rounded(model.get_submodule(name), low, high):
            change = (_first(model, images) - expected).square().mean().sqrt() / spread
        ranking.append(Suffering(name, change.item()))
    return tuple(sorted(ranking, key=lambda each: -each.change))


def _first(model: DeployedModel, images: Tensor) -> Tensor:
    """The first output: of a pyramid the finest map, of a top-k the chances."""
    return model.outputs(images)[0].flatten(1)


@contextmanager
def _rounded(layer: nn.Module, low: float, high: float) -> Iterator[None]:
    """Round a layer's weights and its input, and put it back."""
    assert isinstance(layer, LAYERS)
    step = (high - low) / LEVELS or 1.0
    zero = round(-low / step)

    def round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (((inputs[0] / step).round().clamp(-zero, LEVELS - zero)) * step, *inputs[1:])

    weight = layer.weight.data
    largest = weight.flatten(1).abs().amax(1).clamp_min(torch.finfo(weight.dtype).tiny)
    scale = (largest / (LEVELS // 2)).view(-1, *(1,) * (weight.ndim - 1))
    layer.weight.data = (weight / scale).round() * scale
    handle = layer.register_forward_pre_hook(round_input)
    try:
        yield
    finally:
        handle.remove()
        layer.weight.data = weight
