"""`fold`: the exact inference form of a model, or of any module that has foldable blocks inside."""

import copy
import dataclasses
import sys
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from hybridvit.errors import FoldError, UsageError
from hybridvit.folding.fixed_size import as_size, check_can_fix, fix_size
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Kernel
from hybridvit.models.backbone import Backbone


@overload
def fold(model: Backbone, *, released: bool = False, image_size: int | tuple[int, int] | None = None) -> Backbone: ...
@overload
def fold(model: nn.Module, *, released: bool = False, image_size: int | tuple[int, int] | None = None) -> nn.Module: ...
def fold(model: nn.Module, *, released: bool = False, image_size: int | tuple[int, int] | None = None) -> nn.Module:
    """A new model that computes the same with fewer layers; `model` is unchanged.

    Every foldable block at any depth is replaced, in float64 and rounded once to the dtype of the weights; wrappers
    (DDP, DataParallel, torch.compile) are taken off. The result is in eval mode and takes no gradient. Folding a
    folded model gives an equal copy.

    Args:
        model: a model of this library, anything that contains one, or a bare block; in eval mode.
        released: fold only what the published folded checkpoints fold (no FFN norm, no layer scale outside RepMixer).
        image_size: the one (height, width) in pixels, or side of a square, that the result will take: the positions of
            FasterViT's carriers, which depend on it, become constants too. The card records it. Without it the result
            takes any size, as the model does.

    Raises:
        UsageError: for `released` with a family whose published checkpoints are all unfolded; for an `image_size` on
            which nothing depends, or when the model is fixed to another.
        FoldError: if a foldable block is in training mode or has hooks inside, or if a folded value is not finite or
            does not fit the dtype; the message names the block.
    """
    for module in model.modules() if released else ():
        if isinstance(module, Backbone) and not module.has_released_form:
            raise UsageError(
                f"released is True, but no folded checkpoints of {module.card.architecture} were released, so there is "
                "no such form of it. Leave released out for the full fold."
            )
    size = None if image_size is None else as_size(image_size)
    if size is not None:
        check_can_fix(model, size)
    # leaving inference mode lets the result serve in a backward pass, but also turns gradients on: in this order
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(unwrapped(model), _replacements(model, released))
        if size is not None:
            fix_size(folded, size)
        folded.eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, Backbone) and module.card.form != "folded":
            module.card = dataclasses.replace(module.card, form="released" if released else "folded")
    return folded


@torch.no_grad()
def fold_preprocessing(model: Backbone, *, pixel_max: float = 255.0) -> Backbone:
    """A copy of a folded model that takes raw pixels, 0 to `pixel_max`, as they come from the decoder.

    The division by the standard deviation goes into the first convolution. The mean is still subtracted, from the
    image itself: the zero padding of the stem then stands for a pixel of mean colour, as in the original.

    Raises:
        UsageError: if it is no folded whole model, if this was done before, or if its card has another number of
            channels than the model.
    """
    if not isinstance(model, Backbone):
        raise UsageError(f"A {type(model).__name__} is not a whole model; give one from create_model or load, folded.")
    card, conv = model.card, model.get_submodule(model.first_conv)
    if card.form != "folded":
        raise UsageError(f"The form of this {card.architecture} is '{card.form}', but must be 'folded': fold it first.")
    mean, std = (
        torch.tensor(values, dtype=torch.float64) for values in (card.preprocessing.mean, card.preprocessing.std)
    )
    if len(mean) != model.in_chans:
        raise UsageError(
            f"The preprocessing has {len(mean)} channel means, but {card.architecture} has {model.in_chans} channels. "
            "Give the card a mean and std per channel."
        )
    if not isinstance(conv, nn.Conv2d):
        raise UsageError(f"This {card.architecture} takes raw pixels already: its preprocessing has been folded in.")
    raw = copy.deepcopy(model)
    kernel = Kernel.of(conv, torch.float64)
    weight = kernel.weight / (std.to(kernel.weight) * pixel_max)[:, None, None]
    raw.set_submodule(raw.first_conv, RawPixelConv(Kernel(weight, kernel.bias), conv, mean * pixel_max))
    preprocessing = dataclasses.replace(
        card.preprocessing, mean=(0.0,) * len(mean), std=(pixel_max**-1 if pixel_max != 1 else 1.0,) * len(mean)
    )
    raw.card = dataclasses.replace(card, preprocessing=preprocessing)
    return raw


class RawPixelConv(nn.Module):
    """A convolution on images from which the mean colour is subtracted first; uint8 images are fine."""

    def __init__(self, kernel: Kernel, like: nn.Conv2d, mean: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.conv, folded = copy.deepcopy(like), kernel.cast(like.weight)  # a copy: its padding may be of its own kind
        self.conv.weight = nn.Parameter(folded.weight, requires_grad=False)
        self.conv.bias = nn.Parameter(folded.bias, requires_grad=False)
        self.mean = nn.Parameter(mean.to(like.weight)[:, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.mean.dtype) - self.mean)


def foldable_blocks(model: nn.Module, *, released: bool = False) -> dict[str, Foldable]:
    """The outermost blocks that `fold` replaces, by name; "" is `model` itself."""
    if isinstance(model, Foldable):
        return {} if released and not model.in_released_form else {"": model}
    found: dict[str, Foldable] = {}
    for child_name, child in model.named_children():
        for name, block in foldable_blocks(child, released=released).items():
            found[f"{child_name}.{name}".rstrip(".")] = block
    return found


def unwrapped(module: nn.Module) -> nn.Module:
    """`module` without DDP, DataParallel and torch.compile around it."""
    while isinstance(module, _wrappers()):
        module = module._modules["module" if "module" in module._modules else "_orig_mod"]  # type: ignore[assignment]
    return module


def _wrappers() -> tuple[type[nn.Module], ...]:
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # loaded by the first torch.compile; slow to import
    return (DistributedDataParallel, DataParallel) + ((compiler.OptimizedModule,) if compiler else ())


def _replacements(model: nn.Module, released: bool) -> dict[int, object]:
    """A deepcopy memo in which each foldable block, and each wrapper, already has its replacement."""
    memo: dict[int, object] = {}
    blocks = {
        f"'{name}'" if name else f"this {type(block).__name__}": block
        for name, block in foldable_blocks(model, released=released).items()
    }
    for label, block in blocks.items():
        block.check_foldable(label)
    for label, block in reversed(blocks.items()):  # the largest first: what they free serves the smaller ones
        try:
            memo[id(block)] = block.folded()
        except FoldError as error:
            raise FoldError(f"Cannot fold {label}: {error}{_variances(block)}") from error
    for module in reversed(list(model.modules())):
        if isinstance(module, _wrappers()):
            memo[id(module)] = copy.deepcopy(unwrapped(module), memo)
    return memo


def _variances(block: nn.Module) -> str:
    values = [buffer for name, buffer in block.named_buffers() if name.endswith("running_var")]
    if not values:
        return ""
    merged = torch.cat(values)
    return f" The running_var of its norms lies between {merged.min():.3g} and {merged.max():.3g}."
