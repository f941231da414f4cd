"""Swin with hierarchical attention in place of shifted windows (FasterViT, section 5.5, Table 7: Swin-T + HAT).

Patch embedding and merging are timm's own. A training can start from timm's Swin weights:
`create_model("swin_tiny_hat", pretrained="swin_tiny.safetensors")`.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float, Num
from timm.layers import PatchEmbed
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn

from hybridvit.card import ModelCard
from hybridvit.folding.as_built import check_as_built
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel
from hybridvit.models.backbone import Backbone, check_sizes, pyramid_info, stochastic_depth
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.hat.attention import HierarchicalAttention, MapCarriers, pad_to
from hybridvit.models.hat.position import BiasTable, PositionEmbedding
from hybridvit.models.head import GlobalPool, NormHead
from hybridvit.models.swin_hat.config import SwinHATConfig

PATCH = 4  # side of the patches that the stem reads, in pixels


class SwinHAT(Backbone):
    """Swin with carriers. Input (b, in_chans, h, w); logits (b, num_classes). See `Backbone` for the interface.

    Args:
        config: the architecture; `VARIANTS` has the named ones.
        num_classes: 0 for the pooled vector.
        in_chans: channels of the image.
        global_pool: "avg", "max", or "" for no pooling, with `num_classes=0`.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over the blocks.
        card: the record that travels with the model.

    Raises:
        UsageError: for an unknown pooling, a negative size, or a rate outside 0 to 1.
    """

    def __init__(
        self,
        config: SwinHATConfig,
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
        self.stem = PatchEmbed(None, PATCH, in_chans, config.widths[0], norm_layer=ChannelLayerNorm, flatten=False)
        self.stem.proj = PatchConv(in_chans, config.widths[0], PATCH, PATCH)
        rates = stochastic_depth(config.depths, drop_path_rate)
        self.stages = nn.Sequential(*(Stage(config, stage, own) for stage, own in enumerate(rates)))
        self.expand = nn.Identity()
        self.num_features = self.head_hidden_size = config.widths[-1]
        self.head = NormHead(
            ChannelLayerNorm(self.num_features),
            self.num_features,
            num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
        )
        self.feature_info = pyramid_info(config.widths)
        self.first_conv = "stem.proj"
        self.first_convs = (self.first_conv,)
        self.apply(_initialise)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        if coarse:
            return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^head\.norm", (99999,))]}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.(?:downsample|attention\.carriers)", (0,)),
                (r"^stages\.(\d+)\.attention\.blocks\.(\d+)", None),
                (r"^head\.norm", (99999,)),
            ],
        }


class PatchConv(nn.Conv2d):
    """The convolution of patches; images are filled with zeros at the right and the bottom to whole ones.

    They are filled in here, which is behind the subtraction of the mean once that is folded in.
    """

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        height, width = ((side + PATCH - 1) // PATCH * PATCH for side in x.shape[-2:])
        return super().forward(pad_to(x, height, width))


class Stage(nn.Module):
    """Patch merging (not in the first stage), then attention."""

    def __init__(self, config: SwinHATConfig, index: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        width = config.widths[index]
        self.downsample = Merging(config.widths[index - 1], width) if index else nn.Identity()
        self.attention = HierarchicalAttention(
            width,
            len(drop_path_rates),
            config.attention(index),
            drop_path_rates=drop_path_rates,
            pad_small_maps=True,
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.attention(self.downsample(x))


class Merging(Foldable):
    """timm's patch merging on maps: the channels of 2x2 pixels side by side, LayerNorm, a linear layer without bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.merging = PatchMerging(in_channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return _merged(self.merging, x)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Exact at the border too: the zeros that fill an odd side are there before the norm."""
        check_as_built(self.merging, PatchMerging)
        norm, reduction = self.merging.norm, self.merging.reduction
        assert isinstance(norm, nn.LayerNorm)
        merging = copy.deepcopy(self.merging)
        merging.reduction = Kernel.of(reduction).after(Affine.of_layer_norm(norm)).as_linear(reduction)
        merging.norm = nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)
        return FoldedMerging(merging)


class FoldedMerging(nn.Module):
    """`Merging` for inference: the norm's affine part is inside the linear layer."""

    def __init__(self, merging: PatchMerging) -> None:
        super().__init__()
        self.merging = merging

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return _merged(self.merging, x)


def _merged(merging: PatchMerging, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
    return merging(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # b h w c, and back


def _initialise(module: nn.Module) -> None:
    """Swin's truncated normal of 0.02 for linear layers and bias tables; carriers that disturb little at the start.

    The carriers begin as plain means of the map, and tokens without embeddings, which Swin does not have.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, BiasTable):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, PositionEmbedding):
        nn.init.zeros_(module.mlp.out.weight)
    elif isinstance(module, MapCarriers):
        assert module.conv.bias is not None
        nn.init.dirac_(module.conv.weight, groups=module.conv.groups)
        nn.init.zeros_(module.conv.bias)
