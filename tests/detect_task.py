"""The heads of detection as a task of their own, with small options and made-up targets."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from number_task import Number
from torch import Tensor, nn

import hybridvit
from hybridvit.build import with_head
from hybridvit.card import ModelCard
from hybridvit.models.with_head import WithHead
from hybridvit.task import TASKS
from hybridvit.tasks.detect.heads import HEADS, make

NAME = "detect_heads"
TASKS.setdefault(NAME, "detect_task:Detecting")
RCNN: dict[str, Any] = {
    "pyramid_channels": 16,
    "pyramid_norm": True,
    "conv_channels": 16,
    "fc_width": 32,
    "anchor_sizes": (12, 20, 32, 48, 64),
    "train_proposals": 100,
    "proposals": 60,
    "samples": 32,
    "canonical_px": 48,
    "detections": 20,
}
DINO: dict[str, Any] = {
    "dim": 32,
    "num_heads": 2,
    "num_queries": 30,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "ffn_width": 64,
    "denoising_queries": 10,
    "detections": 40,
}
NUM_CLASSES = 4
SIZE = (96, 128)  # height, width in pixels


class Detecting(Number):
    """The number task with these heads."""

    name = NAME
    heads: ClassVar[Mapping[str, type]] = HEADS
    num_classes = NUM_CLASSES

    def build(self, card: ModelCard) -> nn.Module:
        return with_head(card, lambda channels: make(card, channels))


def detector(head: str = "mask_rcnn", backbone: str = "fastvit_debug", **options: Any) -> WithHead:
    """A small model, in training mode."""
    small = DINO if head == "dino" else RCNN
    model = hybridvit.create_model(backbone, task=NAME, head=head, head_options=small | options)
    assert isinstance(model, WithHead)
    return model.train()


def target(count: int, size: tuple[int, int] = SIZE, *, ignored: int = 0) -> dict[str, Tensor]:
    """An image with that many objects, which are boxes full to the border."""
    height, width = size
    corners = torch.rand(count + ignored, 4) * torch.tensor([width, height, width, height]) * 0.5
    corners[:, 2:] = corners[:, :2] + 12 + corners[:, 2:] * 0.6
    boxes = corners[:count]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    masks = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return {
        "boxes": boxes,
        "labels": torch.randint(NUM_CLASSES, (count,)),
        "masks": masks.to(torch.uint8),
        "ignored": corners[count:],
        "size": torch.tensor(size),
    }
