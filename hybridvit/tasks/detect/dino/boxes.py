"""Boxes as the head has them: centre x, centre y, width, height, in shares of the image without its padding."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOGIT_FLOOR = 1e-3  # DINO's; DETR's and its other descendants' is 1e-5
EPSILON = 1e-6  # added to areas that something is divided by


class Objects(NamedTuple):
    """What is in one image."""

    labels: Int[Tensor, "n"]  # from 0
    boxes: Float[Tensor, "n 4"]  # centre x, centre y, width, height, in shares of the image


def corners(boxes: Float[Tensor, "*any 4"]) -> Float[Tensor, "*any 4"]:
    """Left, top, right, bottom."""
    centre, extent = boxes.chunk(2, dim=-1)
    return torch.cat((centre - extent / 2, centre + extent / 2), dim=-1)


def centred(boxes: Float[Tensor, "*any 4"]) -> Float[Tensor, "*any 4"]:
    """The inverse of `corners`. Corners that cross have a negative extent."""
    low, high = boxes.chunk(2, dim=-1)
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def logit(shares: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The inverse of the sigmoid; both the share and its complement are taken as 1e-3 to 1.

    Bounds twice on the way of one value would make onnxscript 0.7 write a graph that ONNX Runtime refuses.
    """
    return torch.log(shares.clamp(LOGIT_FLOOR, 1.0) / (1 - shares).clamp(LOGIT_FLOOR, 1.0))


def generalised_iou(boxes: Float[Tensor, "*#any 4"], others: Float[Tensor, "*#any 4"]) -> Float[Tensor, "*any"]:
    """Intersection over union, less the share of the common hull that neither covers: -1 to 1."""
    low, high = corners(boxes).chunk(2, dim=-1)
    other_low, other_high = corners(others).chunk(2, dim=-1)
    overlap = _area((torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0))
    union = _area(high - low) + _area(other_high - other_low) - overlap
    hull = _area(torch.maximum(high, other_high) - torch.minimum(low, other_low))
    return overlap / (union + EPSILON) - (hull - union) / (hull + EPSILON)


def _area(extent: Tensor) -> Tensor:
    return extent[..., 0] * extent[..., 1]
