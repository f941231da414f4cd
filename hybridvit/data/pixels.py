"""Pixels on their way from a worker to the process that computes: as bytes, a quarter of what they are as numbers."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hybridvit.batch import Patch


class Pixels(NamedTuple):
    """A prepared image before it is normalised."""

    values: Tensor  # c h w, uint8; lies as h w c
    patch: Patch | None = None  # what random erasing puts into it afterwards


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(values / 255 - mean) / std, for each channel; to the last bit the same wherever it is computed on a CPU."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(
        self, pixels: Tensor, *, layout: torch.memory_format = torch.contiguous_format, pin: bool = False
    ) -> Tensor:
        """Float32 images of uint8 ones (b c h w), in a memory layout, in pinned memory if asked."""
        images = torch.empty(pixels.shape, memory_format=layout, pin_memory=pin)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        for image, values in zip(images, pixels, strict=True):  # one by one, so that it stays in the cache
            image.copy_(values).div_(255).sub_(mean).div_(std)
        return images

    def of(self, pixels: Pixels) -> Tensor:
        """The one image, whole: c h w."""
        (image,) = self(pixels.values[None])
        return image if pixels.patch is None else put(image, pixels.patch)


def put(image: Tensor, patch: Patch) -> Tensor:
    """The image with the patch in it, which is written into it."""
    height, width = patch.values.shape[1:]
    image[:, patch.top : patch.top + height, patch.left : patch.left + width] = patch.values
    return image
