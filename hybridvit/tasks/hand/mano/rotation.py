"""Rotations as 3 x 3 matrices, 6 numbers and axes with angles, and their mirror images."""

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-12  # below the square of a length: gradients stay finite at 0
SMALL = 1e-8  # squares of angles below which series take the place of divisions


def from_6d(columns: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation whose first two columns these six numbers are nearest to (Zhou et al., CVPR 2019, section 4.2).

    The first three numbers give the direction of the first column, the others, less their part along it, that of the
    second. Other code stacks rows, or interleaves the two columns: its numbers have to be reordered first. Numbers that
    span no plane give a finite matrix that is no rotation.
    """
    first, second = columns.unflatten(-1, (2, 3)).unbind(-2)
    first = _unit(first)
    second = _unit(second - (first * second).sum(-1, keepdim=True) * first)
    return torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)


def to_6d(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns, one after the other."""
    return rotation[..., :2].mT.flatten(-2)


def from_axis_angle(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation about the vector by its length in radians. Gradients are finite at 0 too."""
    square = (vector * vector).sum(-1, keepdim=True)
    small = square < SMALL
    angle = torch.where(small, 1, square).sqrt()
    sine = torch.where(small, 1 - square / 6, angle.sin() / angle)[..., None]
    versine = torch.where(small, 0.5 - square / 24, 0.5 * ((angle / 2).sin() / (angle / 2)) ** 2)[..., None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    turn = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + sine * turn + versine * (turn @ turn)


def to_axis_angle(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """The shortest vector that `from_axis_angle` makes this rotation of: at most pi long."""
    real, imaginary = _quaternion(rotation)
    length = torch.linalg.vector_norm(imaginary, dim=-1, keepdim=True)
    angle = 2 * torch.atan2(length, real)
    near = length < SMALL
    return imaginary * torch.where(near, 2 / real.clamp(min=0.5), angle / torch.where(near, 1, length))


def mirrored(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """What a rotation is in a mirror that swaps left and right (x): the right hand's becomes the left hand's."""
    side = torch.tensor([-1, 1, 1], dtype=rotation.dtype, device=rotation.device)
    return rotation * side[:, None] * side


def mirrored_axis_angle(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """As `mirrored`, of an axis with its angle."""
    return vector * torch.tensor([1, -1, -1], dtype=vector.dtype, device=vector.device)


def _unit(vector: Tensor) -> Tensor:
    return vector / ((vector * vector).sum(-1, keepdim=True) + EPSILON).sqrt()


def _quaternion(rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Real (at least 0) and imaginary part, of length 1, without the loss of digits that any one formula has somewhere.

    Each row of the matrix below is the quaternion times one of its own entries; that of the largest one is exact.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = torch.stack(
        (
            *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
            *(zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx),
            *(xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy),
            *(yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz),
        ),
        dim=-1,
    ).unflatten(-1, (4, 4))
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    chosen = torch.take_along_dim(rows, largest, dim=-2).squeeze(-2)
    chosen = chosen / torch.linalg.vector_norm(chosen, dim=-1, keepdim=True)
    chosen = torch.where(chosen[..., :1] < 0, -chosen, chosen)
    return chosen[..., :1], chosen[..., 1:]
