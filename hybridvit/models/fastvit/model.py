"""FastViT (Vasu et al., ICCV 2023), in the form of the released checkpoints."""

import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from hybridvit.digest import digest
from hybridvit.models.backbone import Backbone, initialise_weight
from hybridvit.models.fastvit.blocks import ACTIVATIONS, Attention, ConvFFN, Pooling
from hybridvit.models.fastvit.cards import PUBLISHED
from hybridvit.models.fastvit.config import FastViTConfig
from hybridvit.models.fastvit.reparameterised import OverparamConv, PositionalEncoding, RepMixer
from hybridvit.models.head import ClassifierHead, GlobalPool
from hybridvit.tracing import Unscriptable


class FastViT(Backbone):
    """FastViT; see `Backbone` for arguments and interface."""

    has_released_form = True
    layers_of_stage = (r"(?:downsample|position)", r"blocks\.(\d+)")
    last_layer = "expand"

    def make_body(self, config: FastViTConfig, drop_path_rates: list[list[float]]) -> None:
        width, expands = config.widths[-1], config.head == "expand"
        self.stem = _stem(config, self.in_chans)
        self.stages = nn.Sequential(*(Stage(config, stage, own) for stage, own in enumerate(drop_path_rates)))
        self.expand = ExpandConv(config) if expands else nn.Identity()
        self.num_features = 2 * width if expands else width
        self.first_conv = "stem" if config.stem == "dense" else "stem.0.conv"

    def make_head(self, num_classes: int, *, global_pool: GlobalPool, drop_rate: float) -> ClassifierHead:
        return ClassifierHead(self.num_features, num_classes, global_pool=global_pool, drop_rate=drop_rate)

    def embedding_space(self) -> str:
        """The card's, or of what was not folded here the digest of the weights, but for BatchNorm's counters."""
        published = PUBLISHED.get(self.card.architecture)
        if published is None or published.embedding_width != self.num_classes or self.card.class_names:
            return ""
        if self.card.form != "training" and self.card.embedding_space:
            return self.card.embedding_space
        state = {name: value for name, value in self.state_dict().items() if value.is_floating_point()}
        if any(value.is_meta for value in state.values()):
            return ""
        return digest({name: value.float().cpu().contiguous() for name, value in state.items()})

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Truncated normal of 0.02 for linear layers and the FFN's convolutions; torch's defaults elsewhere."""
        if isinstance(module, nn.Linear):
            initialise_weight(module)
        if isinstance(module, ConvFFN):
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    initialise_weight(layer)


class Stage(Unscriptable):
    """Patch embedding (not in the first stage), positional encoding (before attention), then the blocks."""

    def __init__(self, config: FastViTConfig, index: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        width = config.widths[index]
        self.downsample = Downsample(config, index) if index else nn.Identity()
        attends = config.mixers[index] == "attention"
        self.position = PositionalEncoding(width, kernel_size=config.position_kernel) if attends else nn.Identity()
        self.blocks = nn.Sequential(*(Block(config, index, rate) for rate in drop_path_rates))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.blocks(self.position(self.downsample(x)))


class Block(nn.Sequential):
    """A token mixer, then the FFN; both add their input themselves."""

    def __init__(self, config: FastViTConfig, stage: int, drop_path_rate: float) -> None:
        super().__init__()
        self.mixer = _mixer(config, stage, drop_path_rate)
        self.ffn = ConvFFN(config, config.widths[stage], drop_path_rate)


class ConvUnit(nn.Module):
    """An over-parameterised convolution and an activation."""

    def __init__(self, conv: OverparamConv, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.activation(self.conv(x))


class Downsample(nn.Module):
    """Halve the map and change the channels: a grouped k x k convolution of stride 2, then a 1x1 and an activation.

    Nothing stands between the two in FastViT's released models; in MobileCLIP's an activation, and in some stages
    squeeze-and-excite before that.
    """

    def __init__(self, config: FastViTConfig, stage: int) -> None:
        super().__init__()
        in_channels, out_channels = config.widths[stage - 1], config.widths[stage]
        over = "downsample" in config.overparameterised
        self.squeeze_excite: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Identity()
        kernel_size = config.downsample_kernel
        if config.downsample == "dense":
            self.large: nn.Module = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
            self.project: nn.Module = nn.Identity()
            return
        self.large = OverparamConv(
            in_channels,
            out_channels,
            kernel_size,
            stride=2,
            groups=in_channels,
            small_kernel=3 if over and kernel_size > 3 else None,
            scale=over and kernel_size == 3,
            training_form=config.training_form,
        )
        if stage in config.downsample_squeeze_excite:
            self.squeeze_excite = SqueezeExcite(out_channels, ratio=4)
        if config.downsample_activation:
            self.activation = ACTIVATIONS[config.activation]()
        self.project = ConvUnit(
            OverparamConv(out_channels, out_channels, 1, skip=over, training_form=config.training_form),
            ACTIVATIONS[config.activation](),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.project(self.activation(self.squeeze_excite(self.large(x))))


class ExpandConv(nn.Module):
    """Before the head: a grouped 3x3 convolution that doubles the channels, squeeze-and-excite, activation."""

    def __init__(self, config: FastViTConfig) -> None:
        super().__init__()
        dim = config.widths[-1]
        over = "head" in config.overparameterised
        self.conv = OverparamConv(dim, 2 * dim, 3, groups=dim, scale=over, training_form=config.training_form)
        self.squeeze_excite = SqueezeExcite(2 * dim, ratio=16)
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return self.activation(self.squeeze_excite(self.conv(x)))


class SqueezeExcite(nn.Module):
    """Weigh the channels by their means: 1x1 to 1/ratio of them, ReLU, 1x1 back, sigmoid (Hu et al., 2018)."""

    def __init__(self, dim: int, *, ratio: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, dim // ratio, 1)
        self.expand = nn.Conv2d(dim // ratio, dim, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.gates(x.mean((2, 3), keepdim=True))

    def gates(self, means: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b c 1 1"]:
        """The factors of the channels."""
        return self.expand(F.relu(self.reduce(means))).sigmoid()


def _stem(config: FastViTConfig, in_chans: int) -> nn.Module:
    width = config.widths[0]
    if config.stem == "dense":
        return nn.Conv2d(in_chans, width, 7, 4, 2)
    over = "stem" in config.overparameterised
    scale = over and config.stem_scale
    convs = (
        OverparamConv(in_chans, width, 3, stride=2, scale=scale, skip=over, training_form=config.training_form),
        OverparamConv(
            width, width, 3, stride=2, groups=width, scale=scale, skip=over, training_form=config.training_form
        ),
        OverparamConv(width, width, 1, skip=over, training_form=config.training_form),
    )
    return nn.Sequential(*(ConvUnit(conv, ACTIVATIONS[config.activation]()) for conv in convs))


def _mixer(config: FastViTConfig, stage: int, drop_path_rate: float) -> nn.Module:
    dim, kind = config.widths[stage], config.mixers[stage]
    if kind == "attention":
        return Attention(config, dim, drop_path_rate)
    if kind == "pooling":
        return Pooling(config, dim, drop_path_rate)
    return RepMixer(
        dim,
        kernel_size=config.mixer_kernel,
        overparameterised="mixer" in config.overparameterised,
        layer_scale_init=config.layer_scale_init,
        training_form=config.training_form,
    )
