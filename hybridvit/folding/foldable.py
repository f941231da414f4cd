"""What `fold` looks for in a module tree: blocks with an inference form, whole models, parts that depend on a size."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from hybridvit.card import ModelCard
from hybridvit.errors import FoldError
from hybridvit.folding.as_built import NotAsBuilt, check_unwatched, named
from hybridvit.tracing import Unscriptable


class Foldable(nn.Module, ABC):
    """A block with an exact, cheaper inference form.

    `in_released_form` says whether the published folded checkpoints fold this kind of block too.
    """

    in_released_form = False

    @abstractmethod
    def folded(self) -> nn.Module:
        """The inference form, as a new frozen module; `self` is unchanged.

        Raises:
            FoldError: if a layer is not what it was built as (`NotAsBuilt`), or a folded value does not fit.
        """

    def fold_named(self, label: str) -> nn.Module:
        """`folded`, or a FoldError that names the block as `label`, and the part of it that has no such form."""
        if "folded" not in vars(type(self)):
            raise FoldError(
                f"Cannot fold {label}: it is a {type(self).__name__}, which may compute something else than the class "
                "whose folded() it inherits. Give it a folded() of its own; remove parametrisations."
            )
        try:
            check_unwatched(self)
            return self.folded()
        except NotAsBuilt as error:
            raise FoldError(f"Cannot fold {label}: {named(error, self)}") from error
        except FoldError as error:
            raise FoldError(f"Cannot fold {label}: {error}{_variances(self)}") from error

    def fuse(self) -> nn.Module:
        """`folded` under the name that `timm.utils.reparameterize_model` calls, which does so in training mode too.

        The running statistics are used in any case, as by timm's own blocks, so the result is that of eval mode.
        """
        return self.fold_named(f"this {type(self).__name__}")


class SizeDependent(nn.Module, ABC):
    """A part that computes from the size of its map alone what are constants for maps of one size."""

    has_constants: bool  # whether such constants would replace anything
    only_size: tuple[int, int] | None  # height and width of the map that it is for; None: any

    @abstractmethod
    def for_map(self, height: int, width: int) -> "SizeDependent":
        """A copy for maps of this size alone, with the constants.

        Raises:
            NotAsBuilt: if a constant would leave out what is set on the module that it replaces.
        """


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A `SizeDependent` part of a model whose constants for one size would replace something."""

    name: str  # in the model
    part: SizeDependent
    stride: int  # image pixels per pixel of its map


class Carded(Unscriptable, ABC):
    """A whole model: it has the record that travels with it, and takes images."""

    card: ModelCard
    in_chans: int
    has_released_form: bool  # whether others published folded checkpoints of this family: fold(released=True)

    @abstractmethod
    def size_dependent(self) -> Iterable[Sized]:
        """The parts that `fold` can make for one size of the image."""

    def embedding_space(self) -> str:
        """What `ModelCard.embedding_space` says of it in any form; empty for all but image towers."""
        return ""


def _variances(block: nn.Module) -> str:
    values = [buffer for name, buffer in block.named_buffers() if name.endswith("running_var")]
    if not values:
        return ""
    merged = torch.cat(values)
    return f" The running_var of its norms lies between {merged.min():.3g} and {merged.max():.3g}."
