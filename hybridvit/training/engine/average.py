"""The moving average of the weights, with a step that costs one call."""

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from hybridvit.recipe.groups import EmaConfig


class WeightAverage:
    """timm's ModelEmaV3 (its numbers, to the last bit) over tensors that are looked up once and not in every step.

    `module` is the average, in eval mode, and a copy of the model as it is now. Call `follow` when the model's and
    the average's weights have got their final place, and `update` after each step.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self._ema = ModelEmaV3(model, decay=config.decay, use_warmup=config.warmup)
        self.module: nn.Module = self._ema.module
        self._own: list[Tensor] = []
        self._models: list[Tensor] = []
        self._own_counts: list[Tensor] = []
        self._models_counts: list[Tensor] = []

    def follow(self, model: nn.Module) -> None:
        """Look the tensors up, at the places where they stay from now on."""
        pairs = [
            (_local(own), _local(other))
            for own, other in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)
        ]
        self._own = [own for own, _ in pairs if own.is_floating_point()]
        self._models = [other for own, other in pairs if own.is_floating_point()]
        self._own_counts = [own for own, _ in pairs if not own.is_floating_point()]
        self._models_counts = [other for own, other in pairs if not own.is_floating_point()]

    @torch.no_grad()
    def update(self, *, step: int) -> None:
        """Move the average towards the model after optimizer step number `step`."""
        torch._foreach_lerp_(self._own, self._models, 1.0 - self._ema.get_decay(step))
        if self._own_counts:
            torch._foreach_copy_(self._own_counts, self._models_counts)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
