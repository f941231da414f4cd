"""FasterViT (Hatamizadeh et al., ICLR 2024), in the form of the released checkpoints, for images of any size."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.card import ModelCard
from hybridvit.models.backbone import Backbone, check_sizes, pyramid_info, stochastic_depth
from hybridvit.models.fastervit.blocks import ConvBlock, Downsample, StemConv
from hybridvit.models.fastervit.config import FasterViTConfig
from hybridvit.models.fastervit.edgevit import EdgeViT
from hybridvit.models.fastervit.twins import Twins
from hybridvit.models.hat.attention import HierarchicalAttention
from hybridvit.models.head import GlobalPool, NormHead


class FasterViT(Backbone):
    """FasterViT. Input (b, in_chans, h, w); logits (b, num_classes). See `Backbone` for the interface.

    Args:
        config: the architecture; `VARIANTS` has the published ones.
        num_classes: 0 for the pooled vector.
        in_chans: channels of the image.
        global_pool: "avg", "max", or "" for no pooling, with `num_classes=0`.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over the blocks.
        card: the record that travels with the model.

    Raises:
        UsageError: for an unknown pooling, a negative size, or a rate outside 0 to 1.
    """

    head: NormHead

    def __init__(
        self,
        config: FasterViTConfig,
        *,
        card: ModelCard,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: GlobalPool = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        self.card, self.in_chans, self.num_classes = card, in_chans, num_classes
        self.stem = nn.Sequential(StemConv(in_chans, config.stem_width), StemConv(config.stem_width, config.widths[0]))
        rates = stochastic_depth(config.depths, drop_path_rate)
        self.stages = nn.Sequential(*(Stage(config, stage, own) for stage, own in enumerate(rates)))
        self.expand = nn.Identity()
        self.num_features = self.head_hidden_size = config.widths[-1]
        norm = nn.BatchNorm2d(self.num_features)
        self.head = NormHead(norm, self.num_features, num_classes, global_pool=global_pool, drop_rate=drop_rate)
        self.feature_info = pyramid_info(config.widths)
        self.first_conv = "stem.0.conv"
        self.first_convs = (self.first_conv,)
        self.apply(_initialise)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        if coarse:
            return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^head\.norm", (99999,))]}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.(?:downsample|body\.(?:carriers|position))", (0,)),
                (r"^stages\.(\d+)\.body\.(?:blocks\.)?(\d+)", None),
                (r"^head\.norm", (99999,)),
            ],
        }


class Stage(nn.Module):
    """Downsampling (not in the first stage), then convolutional blocks, or attention of one kind."""

    def __init__(self, config: FasterViTConfig, index: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        width, mixer = config.widths[index], config.mixers[index]
        self.downsample = Downsample(config.widths[index - 1], width) if index else nn.Identity()
        if mixer == "conv":
            scale = config.conv_layer_scale_init
            self.body: nn.Module = nn.Sequential(
                *(ConvBlock(width, layer_scale_init=scale, drop_path_rate=rate) for rate in drop_path_rates)
            )
        elif mixer in ("twins", "edgevit"):
            self.body = (Twins if mixer == "twins" else EdgeViT)(
                width,
                config.num_heads[index],
                mlp_ratio=config.mlp_ratio,
                layer_scale_init=config.layer_scale_init,
                drop_path_rates=drop_path_rates,
            )
        else:
            self.body = HierarchicalAttention(
                width,
                len(drop_path_rates),
                config.attention(index),
                drop_path_rates=drop_path_rates,
                pad_small_maps=True,
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.body(self.downsample(x))


def _initialise(module: nn.Module) -> None:
    """Truncated normal of 0.02 for linear layers; torch's defaults elsewhere."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
