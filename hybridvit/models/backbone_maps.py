"""The feature maps of a backbone of this package, without its classifier."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hybridvit.card import ModelCard
from hybridvit.models.backbone import Backbone
from hybridvit.models.pyramid import Pyramid, below


class BackboneMaps(Pyramid):
    """Maps of a backbone of this package, whose card it shares."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.in_chans = backbone, backbone.in_chans
        self.has_released_form = backbone.has_released_form
        self.first_conv = f"backbone.{backbone.first_conv}"
        self.feature_info = backbone.feature_info

    @property
    def card(self) -> ModelCard:
        """The card of the backbone."""
        return self.backbone.card

    @card.setter
    def card(self, card: ModelCard) -> None:
        self.backbone.card = card

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        found = self.backbone.group_matcher(coarse)
        blocks = [(below("backbone.", pattern), order) for pattern, order in found["blocks"]]
        return {"stem": below("backbone.", found["stem"]), "blocks": blocks}

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}


class FeaturePyramid(BackboneMaps):
    """The feature maps of some stages of a backbone, without its head.

    `channels` and `strides` describe the maps; `names` are those of `Backbone.features`.
    """

    def __init__(self, backbone: Backbone, out_indices: int | Sequence[int] | None = None) -> None:
        indices = backbone.prune_intermediate_layers(
            range(len(backbone.feature_info)) if out_indices is None else out_indices
        )
        super().__init__(backbone)
        self.out_indices = indices
        self.feature_info = [backbone.feature_info[index] for index in self.out_indices]
        self.channels = [entry["num_chs"] for entry in self.feature_info]
        self.strides = [entry["reduction"] for entry in self.feature_info]
        self.names = [f"stride_{stride}" for stride in self.strides]

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """One map (b, f, oh, ow) per stage of `out_indices`, finest first.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """
        return self.backbone.forward_intermediates(x, self.out_indices, stop_early=True, intermediates_only=True)


class LastMap(BackboneMaps):
    """The one map that a backbone's own classifier takes the mean of: behind its last layer and norm.

    `channels` and `strides` describe it; `feature_info` and `features` are the backbone's, as in every model.
    """

    def __init__(self, backbone: Backbone) -> None:
        backbone.reset_classifier(0, "")
        super().__init__(backbone)
        self.channels, self.names = [backbone.head_hidden_size], ["last"]
        self.strides = [backbone.feature_info[-1]["reduction"]]

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """The map (b, f, oh, ow), alone in a list.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """
        return [self.backbone(x)]

    def features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        return self.backbone.features(x)
