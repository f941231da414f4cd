"""Swin with hierarchical attention in place of shifted windows (FasterViT, section 5.5, Table 7: Swin-T + HAT).

Patch embedding and merging are timm's own. A training can start from timm's Swin weights:
`create_model("swin_tiny_hat", pretrained="swin_tiny.safetensors")`.
"""

import copy

import torch
from jaxtyping import Float, Num
from timm.layers import PatchEmbed
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn

from hybridvit.folding.as_built import check_as_built
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel
from hybridvit.models.backbone import Backbone, initialise_weight
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.hat.attention import HierarchicalAttention, MapCarriers, pad_to
from hybridvit.models.hat.position import BiasTable, PositionEmbedding
from hybridvit.models.head import GlobalPool, NormHead
from hybridvit.models.swin_hat.config import SwinHATConfig
from hybridvit.tracing import Unscriptable, leaf

PATCH = 4  # side of the patches that the stem reads, in pixels


class SwinHAT(Backbone):
    """Swin with carriers; see `Backbone` for arguments and interface."""

    first_conv = "stem.proj"
    layers_of_stage = (r"(?:downsample|attention\.carriers)", r"attention\.blocks\.(\d+)")
    last_layer = r"head\.norm"

    def make_body(self, config: SwinHATConfig, drop_path_rates: list[list[float]]) -> None:
        width = config.widths[0]
        self.stem = PatchEmbed(None, PATCH, self.in_chans, width, norm_layer=ChannelLayerNorm, flatten=False)
        self.stem.proj = PatchConv(self.in_chans, width, PATCH, PATCH)
        self.stages = nn.Sequential(*(Stage(config, stage, own) for stage, own in enumerate(drop_path_rates)))
        self.expand = nn.Identity()
        self.num_features = config.widths[-1]

    def make_head(self, num_classes: int, *, global_pool: GlobalPool, drop_rate: float) -> NormHead:
        norm = ChannelLayerNorm(self.num_features)
        return NormHead(norm, self.num_features, num_classes, global_pool=global_pool, drop_rate=drop_rate)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Swin's truncated normal of 0.02 for linear layers and bias tables; carriers that disturb little at the start.

        The carriers begin as plain means of the map, and tokens without embeddings, which Swin does not have.
        """
        if isinstance(module, nn.Linear):
            initialise_weight(module)
        elif isinstance(module, BiasTable):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, PositionEmbedding):
            nn.init.zeros_(module.mlp.out.weight)
        elif isinstance(module, MapCarriers):
            assert module.conv.bias is not None
            nn.init.dirac_(module.conv.weight, groups=module.conv.groups)
            nn.init.zeros_(module.conv.bias)


class PatchConv(nn.Conv2d, Unscriptable):
    """The convolution of patches; images are filled with zeros at the right and the bottom to whole ones.

    They are filled in here, which is behind the subtraction of the mean once that is folded in.
    """

    @leaf
    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        height, width = ((side + PATCH - 1) // PATCH * PATCH for side in x.shape[-2:])
        return super().forward(pad_to(x, height, width))


class Stage(Unscriptable):
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


class FoldedMerging(nn.Module):
    """timm's patch merging on maps: the channels of 2x2 pixels side by side, LayerNorm, a linear layer without bias.

    For inference the norm's affine part is inside the linear layer.
    """

    def __init__(self, merging: PatchMerging) -> None:
        super().__init__()
        self.merging = merging

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.merging(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # b h w c, and back


class Merging(FoldedMerging, Foldable):
    """`FoldedMerging` in training form."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(PatchMerging(in_channels, out_channels))

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
