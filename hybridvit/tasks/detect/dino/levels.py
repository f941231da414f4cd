"""How the tokens of a pyramid lie, and which of them are padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Shape = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The tokens of maps, level after level, finest first, each row by row.

    Shapes are Python integers: a graph has those that it was exported with. All other sizes are width, height, in
    cells. The padding of an image is at its right and its bottom; without any, what is the same for all images stands
    there once.
    """

    shapes: tuple[Shape, ...]  # height, width
    sizes: Float[Tensor, "levels 2"]
    valid_sizes: Float[Tensor, "b levels 2"]  # of the part that is not padding
    padding: Bool[Tensor, "b tokens"] | None = None

    @classmethod
    def of(cls, shapes: Sequence[Shape], padding: Bool[Tensor, "b tokens"] | None, device: torch.device) -> "Levels":
        """Levels of these shapes; `padding` is of all tokens, None if none is."""
        sizes = torch.tensor([[width, height] for height, width in shapes], dtype=torch.float32, device=device)
        valid_sizes = sizes[None]
        if padding is not None:
            parts = padding.split([height * width for height, width in shapes], dim=1)
            valid = [~part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]  # b h w
            counts = [torch.stack((part[:, 0].sum(1), part[:, :, 0].sum(1)), dim=-1) for part in valid]
            valid_sizes = torch.stack(counts, dim=1).float()
        return cls(shapes=tuple(shapes), sizes=sizes, valid_sizes=valid_sizes, padding=padding)

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each level."""
        return [height * width for height, width in self.shapes]

    @property
    def valid_shares(self) -> Float[Tensor, "b levels 2"]:
        """Which share of each level's width and height is not padding."""
        return self.valid_sizes / self.sizes

    def centres(self) -> list[Float[Tensor, "b cells 2"]]:
        """The centres of the cells of each level: x, y in shares of its part that is not padding."""
        return [
            _cells(shape, self.sizes.device) / valid[:, None]
            for shape, valid in zip(self.shapes, self.valid_sizes.unbind(1), strict=True)
        ]


def level_padding(padding: Bool[Tensor, "b h w"], shape: Shape) -> Bool[Tensor, "b oh ow"]:
    """The padding of images as that of a map: of the pixel nearest to each cell's first corner."""
    return F.interpolate(padding[:, None].float(), size=shape)[:, 0].bool()


def _cells(shape: Shape, device: torch.device) -> Float[Tensor, "cells 2"]:
    height, width = shape
    rows = torch.arange(height, dtype=torch.float32, device=device) + 0.5
    columns = torch.arange(width, dtype=torch.float32, device=device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)
