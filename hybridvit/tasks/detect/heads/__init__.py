"""The heads of detection by name. Importing this needs no torch."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from hybridvit.tasks.detect.heads.config import (
    CascadeMaskRCNNConfig,
    CascadeRCNNConfig,
    DINOHeadConfig,
    FasterRCNNConfig,
    MaskRCNNConfig,
)

if TYPE_CHECKING:
    from hybridvit.card import ModelCard
    from hybridvit.models.with_head import Head

HEADS = MappingProxyType(
    {
        "faster_rcnn": FasterRCNNConfig,
        "mask_rcnn": MaskRCNNConfig,
        "cascade_rcnn": CascadeRCNNConfig,
        "cascade_mask_rcnn": CascadeMaskRCNNConfig,
        "dino": DINOHeadConfig,
    }
)
WITH_MASKS = ("mask_rcnn", "cascade_mask_rcnn")


def make(card: "ModelCard", channels: Sequence[int]) -> "Head":
    """The head that a card describes, for maps of these channels, with random weights. Raises as `head_config`."""
    from hybridvit.build import head_config

    config, num_classes = head_config(card), card.options["num_classes"]
    if isinstance(config, DINOHeadConfig):
        from hybridvit.tasks.detect.heads.dino import DINO

        return DINO(config, channels, num_classes)
    from hybridvit.tasks.detect.heads.rcnn import RCNN

    return RCNN(config, channels, num_classes, masks=card.head in WITH_MASKS)
