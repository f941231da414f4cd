"""Features of regions, each pooled from the level of the pyramid that its size belongs to (Lin et al., 2017, eq. 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align

from hybridvit.tasks.detect.heads.boxes import keeps_shapes
from hybridvit.tasks.detect.heads.config import STRIDES

SAMPLES = 2  # a side, of each cell
CANONICAL_LEVEL = 4  # the stride of the level that regions of the canonical size are pooled from is 2 to this power


@dataclass(frozen=True, kw_only=True)
class RegionPooling:
    """Gives each region `size` x `size` cells."""

    size: int
    canonical_px: int
    aligned: bool

    def __call__(
        self, levels: Sequence[Float[Tensor, "b c _h _w"]], regions: Float[Tensor, "n 5"]
    ) -> Float[Tensor, "n c s s"]:
        """The features of regions (number of the image, left, top, right, bottom); the first levels count.

        In an exported graph, which cannot sort the regions by their levels, each is pooled from all of them.
        """
        used = [(level.float(), stride) for level, stride in zip(levels, STRIDES[:4], strict=False)]
        if keeps_shapes(regions):
            chosen = self._level_of(regions[:, 1:])
            pooled = [self._pooled(*level, regions) for level in used]
            masked = [each * (chosen == number)[:, None, None, None] for number, each in enumerate(pooled)]
            return torch.stack(masked).sum(0).to(levels[0].dtype)
        regions = regions.nan_to_num()  # a region that is not a number would read outside of the map
        chosen = self._level_of(regions[:, 1:])
        numbers = [(chosen == number).nonzero()[:, 0] for number in range(len(used))]
        # a call without regions costs milliseconds too, and fills a gradient of the level's size with zeros
        called = [number for number, where in enumerate(numbers) if len(where)] or [0]
        by_level = [self._pooled(*used[number], regions[numbers[number]]) for number in called]
        return torch.cat(by_level)[torch.cat(numbers).argsort()].to(levels[0].dtype)

    def _pooled(self, level: Tensor, stride: int, regions: Tensor) -> Tensor:
        return roi_align(level, regions, (self.size, self.size), 1 / stride, SAMPLES, self.aligned)

    def _level_of(self, boxes: Float[Tensor, "n 4"]) -> Int[Tensor, "n"]:
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        level = (CANONICAL_LEVEL + (area.sqrt() / self.canonical_px).log2() + 1e-6).floor()
        finest = round(math.log2(STRIDES[0]))
        return level.clamp(finest, finest + 3).long() - finest


def with_images(boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "n 5"]:
    """The boxes of a batch one after another, each behind the number of its image."""
    numbers = torch.arange(boxes.shape[0], dtype=boxes.dtype, device=boxes.device)
    return torch.cat((numbers[:, None, None].expand(-1, boxes.shape[1], -1), boxes), dim=-1).flatten(0, 1)


def of_list(boxes: Sequence[Float[Tensor, "_n 4"]]) -> Float[Tensor, "all 5"]:
    """The same of boxes whose number differs from image to image."""
    parts = [torch.cat((each.new_full((len(each), 1), number), each), dim=1) for number, each in enumerate(boxes)]
    return torch.cat(parts)
