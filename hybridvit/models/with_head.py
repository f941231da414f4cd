"""A model whose task has a head of its own: a pyramid of feature maps, and what is made of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.card import ModelCard
from hybridvit.models.pyramid import Pyramid, below
from hybridvit.models.whole import WholeModel


class Head(nn.Module, ABC):
    """What a task makes of feature maps. Its module names are those of the checkpoint, below `head.`."""

    class_layers: tuple[str, ...]  # names of the layers that have outputs for each class
    in_float32: ClassVar[bool] = False
    """Whether it computes in 32 bits in every file: where 16 are too coarse for what it answers, and 8 more so."""

    @abstractmethod
    def forward(self, maps: Sequence[Float[Tensor, "b f oh ow"]], images: Float[Tensor, "b c h w"], *more: Any) -> Any:
        """The answer to maps of strides 4, 8, 16 and 32 of `images`, or to the last map alone.

        `more` is what else the model was called with.

        In training a head may answer otherwise than in eval mode: what its objective asks for.
        """


class WithHead(WholeModel):
    """A pyramid and a head. Called with images, and whatever else the head takes, it gives what the head gives."""

    has_released_form = False

    def __init__(self, pyramid: Pyramid, head: Head, *, num_classes: int) -> None:
        super().__init__()
        self.pyramid, self.head = pyramid, head
        self.in_chans, self.num_classes = pyramid.in_chans, num_classes
        self.feature_info = pyramid.feature_info
        self.first_conv = f"pyramid.{pyramid.first_conv}" if pyramid.first_conv else ""
        self.classifier = tuple(
            f"head.{layer}.{name}"
            for layer in head.class_layers
            for name, _ in head.get_submodule(layer).named_parameters()
        )

    @property
    def card(self) -> ModelCard:
        """That of the pyramid: model and backbone have one record, so that no two can disagree."""
        return self.pyramid.card

    @card.setter
    def card(self, card: ModelCard) -> None:
        self.pyramid.card = card

    @property
    def present_card(self) -> ModelCard:
        return self.card

    def forward(self, x: Float[Tensor, "b c h w"], *more: Any) -> Any:
        """What the head makes of the maps.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """
        return self.head(self.pyramid(x), x, *more)

    def features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b f oh ow"]]:
        return self.pyramid.features(x)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.pyramid.set_grad_checkpointing(enable)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Those of the backbone; the head, which none of them matches, is timm's last layer."""
        inside = self.pyramid.group_matcher(coarse)
        blocks = [(below("pyramid.", pattern), order) for pattern, order in inside["blocks"]]
        return {"stem": below("pyramid.", inside["stem"]), "blocks": blocks}

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {f"pyramid.{name}" for name in self.pyramid.no_weight_decay()}

    def size_dependent(self) -> tuple[()]:
        """None of its own: the backbone, a model as well, has them."""
        return ()
