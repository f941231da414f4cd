"""What of a model depends on the size of the image: the attention whose carriers lie on a map of that size."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from hybridvit.folding.foldable import Carded
from hybridvit.models.backbone import Backbone
from hybridvit.models.hat.attention import HierarchicalAttention


@dataclass(frozen=True)
class CarrierStage:
    """Attention whose carriers lie on a map that depends on the image."""

    attention: HierarchicalAttention
    stride: int  # image pixels per pixel of its map

    @property
    def smallest_side(self) -> int:
        """From this side of the image on, the map always has more than one window, and so carriers."""
        return self.attention.config.window_size * self.stride + 1


def carrier_stages(model: nn.Module) -> Iterator[CarrierStage]:
    """The attention with carriers of every backbone in `model`."""
    for backbone in [module for module in model.modules() if isinstance(module, Backbone)]:
        for stage, info in zip(backbone.stages, backbone.feature_info, strict=True):
            for module in stage.modules():
                if isinstance(module, HierarchicalAttention) and module.config.carrier_size:
                    yield CarrierStage(module, info["reduction"])


def depends_on_size(model: nn.Module) -> bool:
    """Whether `model` computes positions from the size of the image that could be constants."""
    models = [module for module in model.modules() if isinstance(module, Carded)]
    return any(sized.part.only_size is None for module in models for sized in module.size_dependent())
