"""The heads of segmentation: Semantic FPN and UPerNet, on maps of strides 4, 8, 16 and 32.

Every map is resized to the very size of the one that it meets, never by a factor, so that images of odd sides work, in
an exported graph too.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from hybridvit.folding.foldable import Foldable
from hybridvit.models.conv_norm import ConvNormReLU
from hybridvit.models.with_head import Head
from hybridvit.tasks.segment.config import SemanticFPNConfig, UPerNetConfig

Maps = Sequence[Float[Tensor, "b f oh ow"]]
Images: TypeAlias = Float[Tensor, "b c h w"]


class SemanticFPN(Head):
    """Panoptic FPN's semantic branch (Kirillov et al., 2019, section 3.1), as FastViT's Table 9 was made with it.

    Each map of a feature pyramid is brought to stride 4 in steps of a convolution and x 2, and all are added. Gives
    logits (b, classes, h, w) of the size of the images.
    """

    class_layers = ("classes",)

    def __init__(self, config: SemanticFPNConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(list(channels), config.pyramid_channels)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConvNormReLU(config.channels if step else config.pyramid_channels, config.channels)
                for step in range(max(1, level))
            )
            for level in range(len(channels))
        )
        self.drop = nn.Dropout2d(config.drop_rate)
        self.classes = classes_of(config.channels, num_classes)

    def forward(self, maps: Maps, images: Images, *more: Any) -> Float[Tensor, "b k h w"]:
        named = OrderedDict((str(level), fmap) for level, fmap in enumerate(maps))
        pyramid = list(self.fpn(named).values())
        brought = []
        for level, steps in enumerate(self.levels):
            assert isinstance(steps, nn.ModuleList)
            x = pyramid[level]
            for finer, step in zip(reversed(range(max(1, level))), steps, strict=True):
                x = resized(step(x), pyramid[finer])
            brought.append(x)
        first, *others = brought
        for other in others:
            first = first + other
        return resized(self.classes(self.drop(first)), images)


class UPerNet(Head):
    """UPerNet (Xiao et al., 2018) as the papers of Swin, ConvNeXt and FasterViT (Table 4) use it.

    Pyramid pooling on the coarsest map, a top-down path, and all levels joined at stride 4. Gives logits of the size of
    the images, in training mode those of the auxiliary head on stride 16 behind them.
    """

    def __init__(self, config: UPerNetConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width, coarsest = config.channels, channels[-1]
        self.bins = config.bins
        self.pooled = nn.ModuleList(ConvNormReLU(coarsest, width, kernel_size=1) for _ in config.bins)
        self.context = ConvNormReLU(coarsest + len(config.bins) * width, width)
        self.laterals = nn.ModuleList(ConvNormReLU(each, width, kernel_size=1) for each in channels[:-1])
        self.outputs = nn.ModuleList(ConvNormReLU(width, width) for _ in channels[:-1])
        self.joined = ConvNormReLU(len(channels) * width, width)
        self.drop = nn.Dropout2d(config.drop_rate)
        self.classes = classes_of(width, num_classes)
        self.auxiliary: nn.Module = nn.Identity()
        if config.auxiliary:
            self.auxiliary = AuxiliaryHead(config, channels[-2], num_classes)
        self.class_layers = ("classes", "auxiliary.classes") if config.auxiliary else ("classes",)

    def forward(
        self, maps: Maps, images: Images, *more: Any
    ) -> Float[Tensor, "b k h w"] | tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"]]:
        coarsest = maps[-1]
        pooled = [
            resized(conv(mean_of_bins(coarsest, k)), coarsest) for k, conv in zip(self.bins, self.pooled, strict=True)
        ]
        path = [self.context(torch.cat([coarsest, *pooled], 1))]  # the coarsest first
        for lateral, fmap in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            same_size = lateral(fmap)
            path.append(same_size + resized(path[-1], same_size))
        finest = path[-1]
        outputs = [conv(fmap) for conv, fmap in zip(self.outputs, reversed(path[1:]), strict=True)]
        joined = self.joined(torch.cat([resized(fmap, finest) for fmap in (*outputs, path[0])], 1))
        logits = resized(self.classes(self.drop(joined)), images)
        if self.training and isinstance(self.auxiliary, AuxiliaryHead):
            return logits, self.auxiliary(maps[-2], images)
        return logits


class AuxiliaryHead(Foldable):
    """A second answer from the map of stride 16 alone, in training; folded, it is nothing."""

    def __init__(self, config: UPerNetConfig, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(in_channels, config.auxiliary_channels)
        self.drop = nn.Dropout2d(config.drop_rate)
        self.classes = classes_of(config.auxiliary_channels, num_classes)

    def forward(self, fmap: Float[Tensor, "b f oh ow"], images: Images) -> Float[Tensor, "b k h w"]:
        return resized(self.classes(self.drop(self.conv(fmap))), images)

    def folded(self) -> nn.Module:
        return nn.Identity()


def classes_of(channels: int, num_classes: int) -> nn.Conv2d:
    """The last layer: a 1x1 convolution to the classes."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def resized(x: Float[Tensor, "b c h w"], like: Tensor) -> Float[Tensor, "b c oh ow"]:
    """`x` in the height and width of `like`, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def mean_of_bins(x: Float[Tensor, "b c h w"], bins: int) -> Float[Tensor, "b c k k"]:
    """The means over `bins` x `bins` parts of the map: adaptive average pooling, as two matrix products.

    Exporters make constants of the bins of torch's own, which is then wrong at every other size.
    """
    rows, columns = (_bin_weights(x, bins, side) for side in x.shape[-2:])
    return rows @ x @ columns.mT


def _bin_weights(x: Tensor, bins: int, side: int) -> Float[Tensor, "k n"]:
    """Bin i holds the pixels from floor(i n / k) to ceil((i + 1) n / k), each with its share of the mean."""
    number, pixel = torch.arange(bins, device=x.device)[:, None], torch.arange(side, device=x.device)
    start = number * side // bins
    end = -(-(number + 1) * side // bins)
    inside = ((pixel >= start) & (pixel < end)).to(x.dtype)
    return inside / inside.sum(1, keepdim=True)


HEADS: dict[str, Callable[[Any, Sequence[int], int], Head]] = {"semantic_fpn": SemanticFPN, "upernet": UPerNet}
"""By the name that users give it."""
