"""A task whose models have a head of their own, to prove what such tasks share: the mean of the coarsest map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from number_task import Number
from torch import Tensor, nn

from hybridvit.build import head_config, with_head
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.models.with_head import Head


@dataclass(frozen=True, kw_only=True)
class MeanConfig:
    """Options of the head."""

    channels: int = 8
    strides: tuple[int, ...] = (16, 32)


class MeanHead(Head):
    """Per map a 1x1 convolution, the mean over the map, and the sum over all; then a layer of the classes."""

    class_layers = ("classes",)

    def __init__(self, config: MeanConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(each, config.channels, 1) for each in channels)
        self.classes = nn.Linear(config.channels, num_classes)

    def forward(self, maps: Sequence[Tensor], images: Tensor, *more: Any) -> Tensor:
        means = [project(fmap).mean((2, 3)) for project, fmap in zip(self.project, maps, strict=True)]
        return self.classes(sum(means))


class Headed(Number):
    """The number task with this head."""

    name = "headed"
    heads: ClassVar[Mapping[str, type]] = {"mean": MeanConfig, "other": MeanConfig}
    num_classes = 7

    def prepared(self, preprocessing: Preprocessing, image_size: tuple[int, int] | None) -> Preprocessing:
        return replace(preprocessing, image_size=image_size or (64, 96), crop_mode="fit", fit_px=(64, 128))

    def build(self, card: ModelCard) -> nn.Module:
        config = head_config(card)
        return with_head(card, lambda channels: MeanHead(config, channels, card.options["num_classes"]))
