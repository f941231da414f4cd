"""FasterViT (Hatamizadeh et al., ICLR 2024), in the form of the released checkpoints, for images of any size."""

from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.models.backbone import Backbone, initialise_weight
from hybridvit.models.fastervit.blocks import ConvBlock, Downsample, StemConv
from hybridvit.models.fastervit.config import FasterViTConfig
from hybridvit.models.fastervit.edgevit import EdgeViT
from hybridvit.models.fastervit.twins import Twins
from hybridvit.models.hat.attention import HierarchicalAttention
from hybridvit.models.head import GlobalPool, NormHead
from hybridvit.tracing import Unscriptable


class FasterViT(Backbone):
    """FasterViT; see `Backbone` for arguments and interface."""

    head: NormHead
    first_conv = "stem.0.conv"
    layers_of_stage = (r"(?:downsample|body\.(?:carriers|position))", r"body\.(?:blocks\.)?(\d+)")
    last_layer = r"head\.norm"

    def make_body(self, config: FasterViTConfig, drop_path_rates: list[list[float]]) -> None:
        convs = StemConv(self.in_chans, config.stem_width), StemConv(config.stem_width, config.widths[0])
        self.stem = nn.Sequential(*convs)
        self.stages = nn.Sequential(*(Stage(config, stage, own) for stage, own in enumerate(drop_path_rates)))
        self.expand = nn.Identity()
        self.num_features = config.widths[-1]

    def make_head(self, num_classes: int, *, global_pool: GlobalPool, drop_rate: float) -> NormHead:
        norm = nn.BatchNorm2d(self.num_features)
        return NormHead(norm, self.num_features, num_classes, global_pool=global_pool, drop_rate=drop_rate)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Truncated normal of 0.02 for linear layers; torch's defaults elsewhere."""
        if isinstance(module, nn.Linear):
            initialise_weight(module)


class Stage(Unscriptable):
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
            self.body = (Twins if mixer == "twins" else EdgeViT)(width, config.attention(index), drop_path_rates)
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
