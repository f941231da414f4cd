"""What is done to a picture and its objects before a model sees them; geometry first, on bytes, then colour.

Random numbers come from the global generators, which are seeded by (seed, epoch, sample) before.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from hybridvit.card import Interpolation
from hybridvit.data.preprocess import fitted_size
from hybridvit.tasks.detect.config import DetectAugmentConfig

MOST_BETWEEN = 4200  # px of the longer side before DETR's cut


class Objects(NamedTuple):
    """What is on a picture, in its pixels."""

    boxes: Tensor  # n 4 float32: left, top, right, bottom, half open
    labels: Tensor  # n int64
    ignored: Tensor  # m 4 float32, as boxes
    masks: Tensor | None  # n h w, uint8


@dataclass(frozen=True, kw_only=True)
class TrainGeometry:
    """Sizes and cuts of training pictures; see `DetectAugmentConfig`."""

    augment: DetectAugmentConfig
    max_size: int
    interpolation: Interpolation = "bilinear"

    def __call__(self, picture: Image.Image, objects: Objects, side: int) -> tuple[Image.Image, Objects]:
        """The picture whose shorter side becomes `side` at most, with what is left of its objects."""
        size = picture.height, picture.width
        shown = _wrapped(objects, size)
        augment = self.augment
        if augment.resize == "jitter":
            picture, shown = self._jittered(picture, shown, side)
        else:
            if augment.resize == "detr" and torch.rand(()) < 0.5:
                picture, shown = self._cut(picture, shown)
            picture, shown = self._resized(picture, shown, fitted_size(picture.size, (side, self.max_size)))
        steps = [v2.RandomHorizontalFlip(augment.hflip), v2.RandomVerticalFlip(augment.vflip)]
        picture, shown = v2.Compose(steps)(picture, shown)
        if augment.photometric:
            picture = v2.RandomPhotometricDistort(p=augment.photometric)(picture)
        return picture, cleaned(shown, (picture.height, picture.width))

    def _resized(self, picture: Image.Image, shown: dict, size: tuple[int, int]) -> tuple[Image.Image, dict]:
        """To that width and height."""
        width, height = size
        step = v2.Resize((height, width), interpolation=v2.InterpolationMode(self.interpolation), antialias=True)
        return step(picture, shown)

    def _cut(self, picture: Image.Image, shown: dict) -> tuple[Image.Image, dict]:
        """DETR's cut: resized to one of the sides, then a part of random sides."""
        side = self.augment.crop_sides[int(torch.randint(len(self.augment.crop_sides), ()))]
        picture, shown = self._resized(picture, shown, fitted_size(picture.size, (side, MOST_BETWEEN)))
        least, most = self.augment.crop_range
        width, height = (int(torch.randint(min(least, whole), min(most, whole) + 1, ())) for whole in picture.size)
        return v2.RandomCrop((height, width))(picture, shown)

    def _jittered(self, picture: Image.Image, shown: dict, side: int) -> tuple[Image.Image, dict]:
        """At a random size, and at most a square of `side` of it; what is missing of the square is padding."""
        least, most = self.augment.jitter
        picture, shown = v2.ScaleJitter((side, side), scale_range=(least, most), antialias=True)(picture, shown)
        if min(picture.size) < 32:
            picture, shown = self._resized(picture, shown, fitted_size(picture.size, (32, self.max_size)))
        size = min(side, picture.height), min(side, picture.width)
        return v2.RandomCrop(size)(picture, shown)


def resized_objects(objects: Objects, size: tuple[int, int], to: tuple[int, int]) -> Objects:
    """The boxes of a picture of one height and width in the same picture of another; its masks are not needed."""
    scale = torch.tensor([to[1] / size[1], to[0] / size[0]] * 2, dtype=torch.float32)
    return objects._replace(boxes=objects.boxes * scale, ignored=objects.ignored * scale, masks=None)


def cleaned(shown: dict, size: tuple[int, int]) -> Objects:
    """What is left of objects after a step: their boxes anew from their masks, cut off at the picture's edges.

    `v2.SanitizeBoundingBoxes` is not used: it looks at one set of boxes alone, and drops objects of one pixel if it is
    given masks whose boxes end at their last pixel.
    """
    boxes, labels = shown["boxes"].as_subclass(Tensor), shown["labels"]
    masks = shown["masks"].as_subclass(Tensor) if "masks" in shown else None
    if masks is not None:
        seen = masks.flatten(1).bool().any(1)
        masks, boxes, labels = masks[seen], boxes[seen], labels[seen]
        if len(masks):
            boxes = masks_to_boxes(masks).float()
            boxes[:, 2:] += 1  # its last pixel, made half open
    boxes, ignored = _cut_off(boxes, size), _cut_off(shown["ignored"].as_subclass(Tensor), size)
    keep, keep_ignored = _has_extent(boxes), _has_extent(ignored)
    return Objects(boxes[keep], labels[keep], ignored[keep_ignored], None if masks is None else masks[keep])


def as_tensor(picture: Image.Image) -> Tensor:
    """The bytes, c h w."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # h w c -> c h w


def _wrapped(objects: Objects, size: tuple[int, int]) -> dict:
    def boxes(values: Tensor) -> Tensor:
        return tv_tensors.BoundingBoxes(values, format="XYXY", canvas_size=size, clamping_mode=None)

    shown = {"boxes": boxes(objects.boxes), "labels": objects.labels, "ignored": boxes(objects.ignored)}
    return shown if objects.masks is None else {**shown, "masks": tv_tensors.Mask(objects.masks)}


def _cut_off(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    limits = torch.tensor([size[1], size[0]] * 2, dtype=boxes.dtype)
    return boxes.clamp(min=0).minimum(limits)


def _has_extent(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
