"""The maps of a backbone as tokens with positions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.tasks.detect.dino.config import NORM_GROUPS, DINOConfig
from hybridvit.tasks.detect.dino.levels import Levels, Shape, level_padding
from hybridvit.tasks.detect.dino.position import cell_code


class Tokens(NamedTuple):
    """Tokens, where each lies, and how they lie together."""

    values: Float[Tensor, "b n c"]
    positions: Float[Tensor, "#b n c"]
    levels: Levels


class Projection(nn.Module):
    """A convolution to the head's width, and GroupNorm.

    Raises UsageError where a group holds a single number, which GroupNorm refuses: the narrowest head has a channel in
    each group, and a map of one position has no other.
    """

    def __init__(self, in_channels: int, dim: int, *, kernel_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.GroupNorm(NORM_GROUPS, dim)
        nn.init.xavier_uniform_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d oh ow"]:
        moved = self.conv(x)
        if moved.numel() == NORM_GROUPS:
            raise UsageError(
                f"The image is so small that a map of it is one position, which {NORM_GROUPS} channels cannot be "
                f"normalised over. Take images of more than 64 px, or head_options.dim of {2 * NORM_GROUPS} or more."
            )
        return self.norm(moved)


class Pyramid(nn.Module):
    """Projects the maps, adds one of half the coarsest's size if asked to, and lays the tokens of all side by side."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.projections = nn.ModuleList(Projection(each, config.dim) for each in config.channels)
        if not config.has_coarsest:
            self.projections.append(Projection(config.channels[-1], config.dim, kernel_size=3, stride=2))
        self.level_vectors = nn.Parameter(torch.randn(config.num_levels, config.dim))

    def forward(self, maps: Sequence[Float[Tensor, "b _c _h _w"]], padding: Bool[Tensor, "b h w"] | None) -> Tokens:
        sources = [*maps, maps[-1]][: len(self.projections)]
        projected = [project(source) for project, source in zip(self.projections, sources, strict=True)]
        shapes: list[Shape] = [(each.shape[2], each.shape[3]) for each in projected]
        device = projected[0].device
        if padding is None:
            paddings = None
            valid = [torch.ones(1, *shape, dtype=torch.bool, device=device) for shape in shapes]
        else:
            by_level = [level_padding(padding, shape) for shape in shapes]
            paddings = torch.cat([each.flatten(1) for each in by_level], dim=1)
            valid = [~each for each in by_level]
        codes = [_tokens(cell_code(each, self.dim)) for each in valid]
        positions = [code + vector for code, vector in zip(codes, self.level_vectors, strict=True)]
        values = torch.cat([_tokens(each) for each in projected], dim=1)
        return Tokens(values, torch.cat(positions, dim=1), Levels.of(shapes, paddings, device))


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).mT  # b hw c
