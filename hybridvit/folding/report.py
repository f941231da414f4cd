"""Proof of a fold: the same answers, and what it removed."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from hybridvit.difference import relative_error
from hybridvit.errors import UsageError
from hybridvit.folding.batch_norm import is_batch_norm, uses_batch_statistics
from hybridvit.folding.fold import foldable_blocks, unwrapped
from hybridvit.folding.foldable import Carded


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What `fold` did."""

    max_error: float  # largest difference of an output, relative to its largest value
    folded: tuple[str, ...]  # names of the replaced blocks
    left: tuple[str, ...]  # "name (type)" of norms and foldable blocks that remain
    parameters_before: int
    parameters_after: int
    layers_before: dict[str, int]  # layers with weights, by type
    layers_after: dict[str, int]

    def __str__(self) -> str:
        layers = f"{sum(self.layers_before.values())} -> {sum(self.layers_after.values())}"
        left = f"; left as it was: {', '.join(self.left)}" if self.left else "; nothing left to fold"
        return (
            f"Folded {len(self.folded)} blocks. Largest difference {self.max_error:.1e} of the largest output. "
            f"Layers {layers}, parameters {self.parameters_before:,} -> {self.parameters_after:,}{left}."
        )


@torch.no_grad()
def fold_report(model: nn.Module, folded: nn.Module, images: Tensor | None = None) -> FoldReport:
    """Compare a model with its folded form.

    Args:
        model: the model before folding, in eval mode; wrappers are taken off.
        folded: what `fold` made of it.
        images: (b, c, h, w) to compare on; for models of this library random ones of their size by default.

    Raises:
        UsageError: if the model is in training mode, or needs images to be compared on.
    """
    model = unwrapped(model)
    if any(uses_batch_statistics(block) for block in foldable_blocks(model).values()):
        raise UsageError(
            "The model is in training mode, where its outputs depend on the batch. Call model.eval() first."
        )
    if images is None:
        if not isinstance(model, Carded):
            raise UsageError(f"A {type(model).__name__} does not say what images it takes: give some to compare on.")
        images = _random_images(model)
    expected, actual = tree_leaves(model(images)), tree_leaves(folded(images))
    pairs = zip(actual, expected, strict=True)
    return FoldReport(
        max_error=max(relative_error(*(each.cpu().double().numpy() for each in pair)) for pair in pairs),
        folded=tuple(name for name in foldable_blocks(model) if name not in foldable_blocks(folded)),
        left=_left(folded),
        parameters_before=_parameters(model),
        parameters_after=_parameters(folded),
        layers_before=_layers(model),
        layers_after=_layers(folded),
    )


def _random_images(model: Carded) -> Tensor:
    size = model.card.preprocessing.image_size
    noise = torch.randn(2, model.in_chans, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()))


def _left(folded: nn.Module) -> tuple[str, ...]:
    remaining = {
        name: module
        for name, module in folded.named_modules()
        if is_batch_norm(module)
        or isinstance(module, _BatchNorm)
        or (isinstance(module, nn.LayerNorm | nn.GroupNorm) and module.weight is not None)
    }
    return tuple(
        f"{name} ({type(module).__name__})" for name, module in {**remaining, **foldable_blocks(folded)}.items()
    )


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _layers(model: nn.Module) -> dict[str, int]:
    """Modules that hold weights of their own, by type."""
    return dict(Counter(type(m).__name__ for m in model.modules() if any(True for _ in m.parameters(recurse=False))))
