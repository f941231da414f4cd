"""`fold`: the exact inference form of a model, or of any module that has foldable blocks inside."""

import copy
import dataclasses
import sys
from typing import TypeVar, overload

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from hybridvit.card import Form, as_size
from hybridvit.errors import FoldError, UsageError
from hybridvit.folding.as_built import NotAsBuilt, named
from hybridvit.folding.batch_norm import uses_batch_statistics
from hybridvit.folding.foldable import Carded, Foldable

Whole = TypeVar("Whole", bound=Carded)


@overload
def fold(model: Whole, *, released: bool = False, image_size: int | tuple[int, int] | None = None) -> Whole: ...
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
        FoldError: if a foldable block is in training mode, or something inside is not what it was built as (another
            class, an adapter, a parametrisation, hooks), or if a folded value is not finite or does not fit the dtype;
            the message names the block and what is inside.
    """
    for module in _carded(model) if released else ():
        if not module.has_released_form:
            raise UsageError(
                f"released is True, but no folded checkpoints of {module.card.architecture} were released, so there is "
                "no such form of it. Leave released out for the full fold."
            )
    size = None if image_size is None else as_size(image_size)
    if size is not None:
        _check_can_fix(model, size)
    spaces = [module.embedding_space() for module in _carded(model)]
    # leaving inference mode lets the result serve in a backward pass, but also turns gradients on: in this order
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(unwrapped(model), _replacements(model, released))
        if size is not None:
            _fix_size(folded, size)
        folded.eval().requires_grad_(False)
    form: Form = "released" if released else "folded"
    for module, space in zip(_carded(folded), spaces, strict=True):
        if module.card.form != "folded":
            module.card = dataclasses.replace(module.card, form=form, embedding_space=space)
    return folded


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
        if block.training or uses_batch_statistics(block):
            raise FoldError(
                f"Cannot fold {label}: it is in training mode, and BatchNorm only has a fixed kernel once its "
                "statistics are frozen. Call model.eval() before fold(model)."
            )
    for label, block in reversed(blocks.items()):  # the largest first: what they free serves the smaller ones
        memo[id(block)] = block.fold_named(label)
    wrappers = _wrappers()
    for module in reversed(list(model.modules())):
        if isinstance(module, wrappers):
            memo[id(module)] = copy.deepcopy(unwrapped(module), memo)
    return memo


def _carded(model: nn.Module) -> list[Carded]:
    return [module for module in model.modules() if isinstance(module, Carded)]


def _check_can_fix(model: nn.Module, size: tuple[int, int]) -> None:
    """Refuse a size that would change nothing, or that comes too late.

    Raises:
        UsageError: naming the model and its reason.
    """
    carded = _carded(model)
    if not any(True for module in carded for _ in module.size_dependent()):
        raise UsageError(
            f"image_size is {size[0]}x{size[1]}, but it has no effect on "
            f"{carded[0].card.architecture if carded else 'this module'}, which computes nothing from the size of the "
            "image alone. Leave image_size out."
        )
    for card in (module.card for module in carded):
        if card.fixed_size not in (None, size):
            assert card.fixed_size is not None
            raise UsageError(
                f"image_size is {size[0]}x{size[1]}, but the positions of this {card.architecture} are constants for "
                f"{card.fixed_size[0]}x{card.fixed_size[1]} pixels already. Fold the model that it was made from."
            )


def _fix_size(folded: nn.Module, size: tuple[int, int]) -> None:
    """Make what depends on the size alone, in a model of our own making, constants for images of `size`."""
    for module in _carded(folded):
        parts = list(module.size_dependent())
        for sized in parts:
            if sized.part.only_size is None:
                height, width = (-(-side // sized.stride) for side in size)
                try:
                    module.set_submodule(sized.name, sized.part.for_map(height, width))
                except NotAsBuilt as error:
                    raise FoldError(f"Cannot fold '{sized.name}' for one size: {named(error, sized.part)}") from error
        if parts:
            preprocessing = dataclasses.replace(module.card.preprocessing, image_size=size)
            module.card = dataclasses.replace(module.card, fixed_size=size, preprocessing=preprocessing)
