"""The feature pyramid that all R-CNN heads read (Lin et al., 2017), with a level of stride 64."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.models.conv_norm import ConvNorm

NUM_LEVELS = 5  # of strides 4 to 64


class FeaturePyramid(nn.Module):
    """Maps of strides 4 to 32, or to 64, to maps of strides 4 to 64 with the same number of channels.

    Where the backbone has no fifth map, the last level is each other value of the one before.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, norm: bool) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(_convolution(each, channels, 1, norm) for each in in_channels)
        self.outputs = nn.ModuleList(_convolution(channels, channels, 3, norm) for _ in in_channels)

    def forward(self, maps: Sequence[Float[Tensor, "b _f _h _w"]]) -> list[Tensor]:
        path: list[Tensor] = []
        for lateral, fmap in zip(reversed(self.laterals), reversed(maps), strict=True):  # the coarsest first
            same_size = lateral(fmap)
            if path:
                same_size = same_size + F.interpolate(path[-1], size=same_size.shape[-2:], mode="nearest")
            path.append(same_size)
        levels = [output(x) for output, x in zip(self.outputs, reversed(path), strict=True)]
        return levels if len(levels) == NUM_LEVELS else [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


def _convolution(in_channels: int, channels: int, kernel_size: int, norm: bool) -> nn.Module:
    if norm:
        return ConvNorm(in_channels, channels, kernel_size=kernel_size)
    layer = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
