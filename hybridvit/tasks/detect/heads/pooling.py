"""Features of regions, each pooled from the level of the pyramid that its size belongs to (Lin et al., 2017, eq. 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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

        An exported graph cannot sort the regions by their levels.
        """
        used = [(level.float(), stride) for level, stride in zip(levels, STRIDES[:4], strict=False)]
        regions = regions.nan_to_num()  # a region that is not a number would read outside of the map
        chosen = self._level_of(regions[:, 1:])
        if keeps_shapes(regions):
            pooled = self._pooled_at_once if self.aligned else self._pooled_from_each
            return pooled(used, regions, chosen).to(levels[0].dtype)
        numbers = [(chosen == number).nonzero()[:, 0] for number in range(len(used))]
        # a call without regions costs milliseconds too, and fills a gradient of the level's size with zeros
        called = [number for number, where in enumerate(numbers) if len(where)] or [0]
        by_level = [self._pooled(*used[number], regions[numbers[number]]) for number in called]
        return torch.cat(by_level)[torch.cat(numbers).argsort()].to(levels[0].dtype)

    def _pooled(self, level: Tensor, stride: int, regions: Tensor) -> Tensor:
        return roi_align(level, regions, (self.size, self.size), 1 / stride, SAMPLES, self.aligned)

    def _pooled_at_once(self, used: Sequence[tuple[Tensor, int]], regions: Tensor, chosen: Tensor) -> Tensor:
        """One call, where one for each level pools each region four times.

        The levels are the images of a batch, and regions are in pixels of their level. Levels are continued by their
        last row and column, where samples lie that are beyond the centre of the last pixel.
        """
        height, width = used[0][0].shape[-2:]
        images = [
            F.pad(level, (0, width - level.shape[-1] + 1, 0, height - level.shape[-2] + 1), mode="replicate")
            for level, _ in used
        ]
        numbers = regions[:, :1] * len(used) + chosen[:, None]  # images of one picture lie beside each other
        boxes = regions[:, 1:] * regions.new_tensor([1 / stride for _, stride in used])[chosen][:, None]
        whole = torch.stack(images, 1).flatten(0, 1)  # (b levels) c h w
        return self._pooled(whole, 1, torch.cat((numbers, boxes), 1))

    def _pooled_from_each(self, used: Sequence[tuple[Tensor, int]], regions: Tensor, chosen: Tensor) -> Tensor:
        """A call for each level: without `aligned` a region is a pixel wide at least, and so may leave its level, and
        what it reads there is zero."""
        pooled = [
            self._pooled(*level, regions) * (chosen == number)[:, None, None, None] for number, level in enumerate(used)
        ]
        return torch.stack(pooled).sum(0)

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
