"""Which parts of a picture speak for a class: class activation maps, signed and in the units of the logit."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from hybridvit.errors import UsageError
from hybridvit.models.backbone import Backbone

Method = Literal["grad", "hires", "layer"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The logit that is explained; of two classes their difference."""

    label: int
    against: int | None = None

    def of(self, logits: Float[Tensor, "b classes"]) -> Tensor:
        """The explained value. Raises UsageError for a class that there is not."""
        for label in (self.label, self.against):
            if label is not None and not 0 <= label < logits.shape[1]:
                raise UsageError(f"The class is {label}, but the model has {logits.shape[1]}, numbered from 0.")
        value = logits[0, self.label]
        return value if self.against is None else value - logits[0, self.against]


def class_activation(
    model: Backbone,
    image: Float[Tensor, "1 c h w"],
    target: Target,
    *,
    method: Method = "grad",
    stage: int | None = None,
) -> Float[Tensor, "h w"]:
    """The part of each place of a feature map in a logit; raw, so negative where it speaks against.

    `grad` weighs each channel by its mean gradient (Selvaraju et al., 2017), `hires` each value by its own (Draelos
    and Carin, 2020), `layer` by the positive part of its own (Jiang et al., 2021). Where the head is affine before its
    mean, as here, `grad` on the last map is CAM (Zhou et al., 2016). `stage`, from 1, chooses an earlier map. No weight
    needs a gradient, so folded models give the same.

    Raises:
        UsageError: for an unknown method, stage or class, a model without classes, and `hires` on a map that is
            normalised over its channels next, as FasterViT's between stages: there it is zero whatever the picture.
    """
    if method not in ("grad", "hires", "layer"):
        raise UsageError(f"The method is '{method}', but must be grad, hires or layer.")
    if model.num_classes == 0:
        raise UsageError("The model has no classes, so there is nothing to explain. Give one with a classifier.")
    if stage is not None and not 1 <= stage <= len(model.stages):
        raise UsageError(f"The stage is {stage}, but the model has {len(model.stages)}: use 1 to {len(model.stages)}.")
    model.check_input(image)
    before, after = model.stages[:stage], model.stages[stage:] if stage is not None else ()
    with torch.no_grad():
        features = model.stem(image)
        for each in before:
            features = each(features)
        if stage is None:
            features = model.expand(features)
    with torch.enable_grad():
        features = features.detach().requires_grad_()
        rest = features
        for each in after:
            rest = each(rest)
        logits = model.forward_head(rest if stage is None else model.expand(rest))
        (gradient,) = torch.autograd.grad(target.of(logits), features)
    weights = {"grad": gradient.mean((2, 3), keepdim=True), "hires": gradient, "layer": gradient.relu()}[method]
    parts = weights * features.detach()
    if method == "hires" and parts.sum(1).abs().max() < 1e-4 * parts.abs().sum(1).max():
        raise UsageError(
            "The method is 'hires', but the next layer normalises this map over its channels, so its values and "
            "gradients cancel to zero at every place. Use --method grad, or the last map."
        )
    return parts.sum(1)[0]


def predicted(model: Backbone, image: Float[Tensor, "1 c h w"]) -> Target:
    """The class that the model answers."""
    with torch.no_grad():
        return Target(label=int(model(image)[0].argmax()))


def with_random_last_stage(model: Backbone, *, seed: int = 0) -> Backbone:
    """A copy with the values of each weight of the last stage in random order (Adebayo et al., 2018).

    A map that stays as it was has not shown what the model learned.
    """
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (changed.stages[-1], changed.expand):
            for weight in part.parameters():
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return changed


def rank_correlation(one: Float[Tensor, "h w"], other: Float[Tensor, "h w"]) -> float:
    """Spearman's: 1 where both put all places in the same order; nan where a map has one value alone."""
    if any(values.min() == values.max() for values in (one, other)):
        return float("nan")
    return spearman_corrcoef(one.flatten().double(), other.flatten().double()).item()
