"""FasterViT's convolutional parts, each with its folded form."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel, conv_owning, exact
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.drop_path import drop_path
from hybridvit.models.layer_scale import new_layer_scale

STEM_EPS, DOWNSAMPLE_EPS = 1e-4, 1e-6


class StemConv(Foldable):
    """A 3x3 convolution of stride 2, BatchNorm, ReLU (FasterViT, section 3.3, Stem)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=STEM_EPS)

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return F.relu(self.norm(self.conv(x)))

    def folded(self) -> nn.Module:
        return FoldedStemConv(_conv_norm(self.conv, self.norm))


class FoldedStemConv(nn.Module):
    """`StemConv` for inference: one convolution and a ReLU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return F.relu_(self.conv(x))


class ConvBlock(Foldable):
    """Two 3x3 convolutions with BatchNorms, GELU between them, plus the input (FasterViT, equation 1)."""

    def __init__(self, dim: int, *, layer_scale_init: float | None, drop_path_rate: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.layer_scale = None if layer_scale_init is None else new_layer_scale(layer_scale_init, dim)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        branch = self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x)))))
        branch = drop_path(branch, self.drop_path_rate, training=self.training)
        return x + branch if self.layer_scale is None else torch.addcmul(x, branch, self.layer_scale[:, None, None])

    def folded(self) -> nn.Module:
        second = Kernel.of(self.conv2).then(Affine.of(self.norm2))
        if self.layer_scale is not None:
            second = second.scaled(exact(self.layer_scale))
        return FoldedConvBlock(_conv_norm(self.conv1, self.norm1), _channels_last(second.as_conv(self.conv2)))


class FoldedConvBlock(nn.Module):
    """`ConvBlock` for inference: norms and layer scale are inside the convolutions."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv1, conv2

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv2(F.gelu(self.conv1(x))).add_(x)  # in place: memory is what bounds these stages


class Downsample(Foldable):
    """LayerNorm over the channels, then a 3x3 convolution of stride 2 (FasterViT, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(in_channels, eps=DOWNSAMPLE_EPS)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.conv(self.norm(x))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        affine, kernel = Affine.of_layer_norm(self.norm, ChannelLayerNorm), Kernel.of(self.conv)
        gain, bias = affine.gain, affine.shift
        smallest = bias.abs() * (torch.finfo(self.conv.weight.dtype).eps / 8)
        gain = torch.where(gain.abs() < smallest, smallest, gain)  # what this adds vanishes beside the bias's rounding
        shift = torch.where(gain == 0, 0, bias / gain)
        shift = Kernel(shift[:, None, None, None], torch.zeros_like(shift)).cast(self.norm.bias).weight.flatten()
        weight = Kernel(kernel.weight * gain[:, None, None], kernel.bias).cast(self.conv.weight).weight
        return FoldedDownsample(shift, _channels_last(conv_owning(self.conv, weight, None)), self.norm.eps)


class FoldedDownsample(nn.Module):
    """`Downsample` for inference: the norm's gain is in the convolution.

    Its shift is not: the zeros of the padding do not pass through the norm, so it is no bias at the border.
    """

    def __init__(self, shift: Float[Tensor, "c"], conv: nn.Conv2d, eps: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift, requires_grad=False)
        self.conv, self.eps = conv, eps

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        pixels = F.layer_norm(x.permute(0, 2, 3, 1), self.shift.shape, None, self.shift, self.eps)  # b h w c
        return self.conv(pixels.permute(0, 3, 1, 2))  # b c h w


def _conv_norm(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    kernel = Kernel.of(conv).then(Affine.of(norm))
    return _channels_last(kernel.as_conv(conv))


def _channels_last(conv: nn.Conv2d) -> nn.Conv2d:
    """The same layer with its kernel channels last in memory: its output then is too, as windows and norms want it."""
    return conv.to(memory_format=torch.channels_last)
