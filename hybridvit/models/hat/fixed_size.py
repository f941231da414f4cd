"""What of a model depends on the size of the image: the attention whose carriers lie on a map of that size."""

from collections.abc import Iterator

from torch import nn

from hybridvit.folding.foldable import Carded
from hybridvit.models.backbone import Backbone
from hybridvit.models.hat.attention import HierarchicalAttention


def sides_with_carriers(model: nn.Module) -> Iterator[int]:
    """For each attention with carriers: from this side of the image on, its map always has more than one window."""
    for backbone in [module for module in model.modules() if isinstance(module, Backbone)]:
        for stage, info in zip(backbone.stages, backbone.feature_info, strict=True):
            for module in stage.modules():
                if isinstance(module, HierarchicalAttention) and module.config.carrier_size:
                    yield module.config.window_size * info["reduction"] + 1


def depends_on_size(model: nn.Module) -> bool:
    """Whether `model` computes positions from the size of the image that could be constants."""
    models = [module for module in model.modules() if isinstance(module, Carded)]
    return any(sized.part.only_size is None for module in models for sized in module.size_dependent())
