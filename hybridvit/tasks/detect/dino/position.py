"""Sine codes: of the cells of a map, and of boxes."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CELL_TEMPERATURE, BOX_TEMPERATURE = 20.0, 10_000.0
EPSILON = 1e-6  # in cells: a column that is all padding has none


def sine_code(angles: Float[Tensor, "*any"], width: int, temperature: float) -> Float[Tensor, "*any {width}"]:
    """`width` numbers for each angle: sine and cosine of ever slower turns, in pairs."""
    turns = torch.arange(0, width, 2, dtype=torch.float32, device=angles.device) / width
    turned = angles[..., None] / temperature**turns
    return torch.stack((turned.sin(), turned.cos()), dim=-1).flatten(-2)


def cell_code(valid: Bool[Tensor, "b h w"], dim: int) -> Float[Tensor, "b {dim} h w"]:
    """Half of the channels for y, half for x: a turn is the extent of the map without its padding."""
    cells = valid.float()
    codes = []
    for axis in (1, 2):
        counted = cells.cumsum(axis)
        angles = 2 * math.pi * counted / (counted.narrow(axis, -1, 1) + EPSILON)
        codes.append(sine_code(angles, dim // 2, CELL_TEMPERATURE))
    return torch.cat(codes, dim=-1).permute(0, 3, 1, 2)  # b dim h w


def box_code(boxes: Float[Tensor, "b q 4"], dim: int) -> Float[Tensor, "b q {2*dim}"]:
    """Half of `dim` numbers each for centre y, centre x, width, height, in this order."""
    x, y, width, height = boxes.unbind(-1)
    ordered = 2 * math.pi * torch.stack((y, x, width, height), dim=-1)
    return sine_code(ordered, dim // 2, BOX_TEMPERATURE).flatten(-2)
