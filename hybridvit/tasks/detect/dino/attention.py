"""Attention to a few points of each map, whose places a query chooses (Zhu et al., Deformable DETR, section 4.1)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.tasks.detect.dino.levels import Levels, Shape


class DeformableAttention(nn.Module):
    """Each head of a query reads `num_points` places on each level, with weights that sum to one over all levels."""

    def __init__(self, dim: int, *, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        num_samples = num_heads * num_levels * num_points
        self.offsets = nn.Linear(dim, 2 * num_samples)  # head, level, point, x y
        self.weights = nn.Linear(dim, num_samples)  # head, level, point
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self._initialise()

    def _initialise(self) -> None:
        """Each head looks in a direction of its own, its points one after another, all with the same weight."""
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.weights, self.value, self.out):
            nn.init.zeros_(layer.bias)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # onto a square
        steps = 1 + torch.arange(self.num_points)
        offsets = directions[:, None, None] * steps[:, None]  # heads 1 points 2
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())

    def forward(
        self,
        queries: Float[Tensor, "b q c"],
        references: Float[Tensor, "#b q levels xy_or_box"],
        tokens: Float[Tensor, "b n c"],
        levels: Levels,
    ) -> Float[Tensor, "b q c"]:
        """What each query reads of `tokens` around its reference: a point or a box on each level, in shares of the map.

        Offsets from a point are in cells; from the centre of a box, in halves of its sides over the number of points.
        """
        values = self.value(tokens)
        if levels.padding is not None:
            values = values.masked_fill(levels.padding[..., None], 0)
        places = self._places(self.offsets(queries), references, levels)  # b q heads levels points 2
        weights = self.weights(queries).unflatten(-1, (self.num_heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))  # b q heads levels points
        maps = zip(values.split(levels.lengths, dim=1), levels.shapes, strict=True)
        read = [
            self._read(value, shape, places[:, :, :, level], weights[:, :, :, level])
            for level, (value, shape) in enumerate(maps)
        ]
        return self.out(torch.stack(read).sum(0))

    def _places(self, offsets: Tensor, references: Tensor, levels: Levels) -> Tensor:
        offsets = offsets.unflatten(-1, (self.num_heads, self.num_levels, self.num_points, 2))
        references = references[:, :, None, :, None]  # b q 1 levels 1 (2 or 4)
        if references.shape[-1] == 2:
            return references + offsets / levels.sizes[:, None]
        centre, extent = references.chunk(2, dim=-1)
        return centre + offsets * extent * (0.5 / self.num_points)

    def _read(self, values: Tensor, shape: Shape, places: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum over the points of one level: b q c."""
        maps = values.unflatten(1, shape).unflatten(-1, (self.num_heads, -1))  # b h w heads d
        maps = maps.permute(0, 3, 4, 1, 2).flatten(0, 1)  # (b heads) d h w
        grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)  # (b heads) q points 2
        sampled = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (b heads) 1 q points
        read = (sampled * weights).sum(-1).unflatten(0, (-1, self.num_heads))  # b heads d q
        return read.flatten(1, 2).mT  # b q (heads d)
