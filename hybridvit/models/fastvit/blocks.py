"""FastViT's residual blocks: token mixers other than RepMixer, and the FFN, each with its folded form."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.as_built import check_as_built
from hybridvit.folding.batch_norm import is_batch_norm
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel, exact
from hybridvit.models.attention import attention
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.drop_path import drop_path
from hybridvit.models.fastvit.config import HEAD_DIM, FastViTConfig
from hybridvit.models.fastvit.reparameterised import OverparamConv
from hybridvit.models.layer_scale import new_layer_scale

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class Residual(Foldable):
    """A branch with layer scale and stochastic depth, added to its input: `x + drop_path(layer_scale * branch(x))`."""

    def __init__(self, dim: int, *, layer_scale_init: float, drop_path_rate: float) -> None:
        super().__init__()
        self.layer_scale = new_layer_scale(layer_scale_init, dim, 1, 1)
        self.drop_path_rate = drop_path_rate

    def add(self, x: Float[Tensor, "b c h w"], branch: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The residual sum, in one pass over memory; whole images of `branch` are dropped in training."""
        branch = drop_path(branch, self.drop_path_rate, training=self.training)
        return torch.addcmul(x, branch, self.layer_scale)


class ConvFFN(Residual):
    """Depthwise k x k convolution and norm, then two 1x1 convolutions (FastViT, section 3.2.3).

    Without the depthwise convolution the norm comes first, as in a transformer.
    """

    def __init__(self, config: FastViTConfig, dim: int, drop_path_rate: float) -> None:
        super().__init__(dim, layer_scale_init=config.layer_scale_init, drop_path_rate=drop_path_rate)
        over = "ffn" in config.overparameterised
        if config.ffn_kernel is None:
            self.depthwise: nn.Module = _norm(config.norm, dim)
        elif config.norm == "batch":
            self.depthwise = OverparamConv(
                dim, dim, config.ffn_kernel, groups=dim, scale=over, skip=over, training_form=config.training_form
            )
        else:
            conv = nn.Conv2d(dim, dim, config.ffn_kernel, padding=config.ffn_kernel // 2, groups=dim, bias=False)
            self.depthwise = nn.Sequential(conv, _norm(config.norm, dim))
        hidden = dim * config.mlp_ratio
        # over-parameterised they are only followed by BatchNorm: a 1x1 has no smaller branch, and the shapes differ
        self.expand = OverparamConv(dim, hidden, 1) if over else nn.Conv2d(dim, hidden, 1)
        self.activation = ACTIVATIONS[config.activation]()
        self.project = OverparamConv(hidden, dim, 1) if over else nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.add(x, self.project(self.activation(self.expand(self.depthwise(x)))))

    def folded(self) -> nn.Module:
        expand, project = _kernel(self.expand), _kernel(self.project).scaled(exact(self.layer_scale.flatten()))
        if isinstance(self.depthwise, OverparamConv):
            check_as_built(self.depthwise, OverparamConv)
            depthwise: nn.Module = self.depthwise.folded()
        elif is_batch_norm(self.depthwise):
            expand, depthwise = expand.after(Affine.of(self.depthwise)), nn.Identity()
        else:
            depthwise = copy.deepcopy(self.depthwise)
        return FoldedFFN(
            depthwise,
            expand.as_conv(_geometry(self.expand)),
            copy.deepcopy(self.activation),
            project.as_conv(_geometry(self.project)),
        )


class FoldedFFN(nn.Sequential):
    """`ConvFFN` for inference: its norm and layer scale are inside the convolutions."""

    def __init__(self, depthwise: nn.Module, expand: nn.Conv2d, activation: nn.Module, project: nn.Conv2d) -> None:
        super().__init__()
        self.depthwise, self.expand, self.activation, self.project = depthwise, expand, activation, project

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + super().forward(x)


class Attention(Residual):
    """Multi-head self-attention over all pixels, heads of 32 channels, without position bias."""

    def __init__(self, config: FastViTConfig, dim: int, drop_path_rate: float) -> None:
        super().__init__(dim, layer_scale_init=config.layer_scale_init, drop_path_rate=drop_path_rate)
        own = config.attention_norm == "layer"
        self.norm = ChannelLayerNorm(dim, eps=1e-5) if own else _norm(config.attention_norm or config.norm, dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.add(x, attend(self.norm(x), self.to_qkv, self.to_out))

    def folded(self) -> nn.Module:
        norm, qkv = copy.deepcopy(self.norm), Kernel.of(self.to_qkv)
        if is_batch_norm(norm):
            norm, qkv = nn.Identity(), qkv.after(Affine.of(norm))
        elif type(norm) is ChannelLayerNorm:
            norm, qkv = norm.plain(), qkv.after(Affine.of_layer_norm(norm, ChannelLayerNorm))
        out = Kernel.of(self.to_out).scaled(exact(self.layer_scale.flatten()))
        return FoldedAttention(norm, qkv.as_linear(self.to_qkv), out.as_linear(self.to_out))


class FoldedAttention(nn.Module):
    """`Attention` for inference: BatchNorm, or the affine part of LayerNorm, and layer scale are in linear layers."""

    def __init__(self, norm: nn.Module, to_qkv: nn.Linear, to_out: nn.Linear) -> None:
        super().__init__()
        self.norm, self.to_qkv, self.to_out = norm, to_qkv, to_out

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + attend(self.norm(x), self.to_qkv, self.to_out)


class Pooling(Residual):
    """PoolFormer's mixer, the baseline of the paper's Table 1: average of the neighbours minus the pixel itself."""

    def __init__(self, config: FastViTConfig, dim: int, drop_path_rate: float) -> None:
        super().__init__(dim, layer_scale_init=config.layer_scale_init, drop_path_rate=drop_path_rate)
        self.norm = _norm(config.norm, dim)
        self.kernel_size = config.mixer_kernel

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.add(x, pool_difference(self.norm(x), self.kernel_size))

    def folded(self) -> nn.Module:
        norm, gain = copy.deepcopy(self.norm), exact(self.layer_scale.flatten())
        if is_batch_norm(norm):  # its shift cancels in the difference
            norm, gain = nn.Identity(), gain * Affine.of(norm).gain
        return FoldedPooling(norm, gain.to(self.layer_scale)[:, None, None], self.kernel_size)


class FoldedPooling(nn.Module):
    """`Pooling` for inference: BatchNorm's gain and the layer scale are one factor."""

    def __init__(self, norm: nn.Module, gain: Float[Tensor, "c 1 1"], kernel_size: int) -> None:
        super().__init__()
        self.norm, self.kernel_size = norm, kernel_size
        self.gain = nn.Parameter(gain, requires_grad=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return torch.addcmul(x, pool_difference(self.norm(x), self.kernel_size), self.gain)


def attend(x: Float[Tensor, "b c h w"], to_qkv: nn.Module, to_out: nn.Module) -> Float[Tensor, "b c h w"]:
    """Attention between all pixels of a map; the channels of `to_qkv` are ordered (3, heads, 32)."""
    height, width = x.shape[-2:]
    tokens = x.flatten(2).mT  # b hw c
    qkv = to_qkv(tokens).unflatten(-1, (3, -1, HEAD_DIM))  # b hw 3 heads d
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each: b heads hw d
    mixed = attention(q, k, v)  # b heads hw d
    tokens = to_out(mixed.transpose(1, 2).flatten(2))  # b hw c
    return tokens.mT.unflatten(-1, (height, width))  # b c h w


def pool_difference(x: Float[Tensor, "b c h w"], kernel_size: int) -> Float[Tensor, "b c h w"]:
    """The average over the neighbours inside the map, minus the pixel."""
    return F.avg_pool2d(x, kernel_size, 1, kernel_size // 2, count_include_pad=False) - x


def _norm(name: str, dim: int) -> nn.Module:
    norms: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(dim),
        "layer": lambda: ChannelLayerNorm(dim, eps=1e-6),
        "group": lambda: nn.GroupNorm(1, dim),
    }
    return norms[name]()


def _geometry(layer: nn.Module) -> nn.Conv2d:
    conv = layer.kxk.conv if isinstance(layer, OverparamConv) else layer
    assert isinstance(conv, nn.Conv2d)
    return conv


def _kernel(layer: nn.Module) -> Kernel:
    check_as_built(layer, *(OverparamConv,) if isinstance(layer, OverparamConv) else (nn.Conv2d,))
    return layer.kernel() if isinstance(layer, OverparamConv) else Kernel.of(_geometry(layer))
