"""Small detectors and made-up targets."""

from typing import Any

import torch
from torch import Tensor

import hybridvit
from hybridvit.models.with_head import WithHead

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


def detector(head: str = "mask_rcnn", backbone: str = "fastvit_debug", **options: Any) -> WithHead:
    """A small model, in training mode."""
    small = DINO if head == "dino" else RCNN
    model = hybridvit.create_model(
        backbone, task="detect", head=head, num_classes=NUM_CLASSES, head_options=small | options, image_size=SIZE
    )
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
