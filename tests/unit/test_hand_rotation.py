"""Rotations of hands, against roma and SciPy."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hybridvit.tasks.hand.mano.rotation import (
    from_6d,
    from_axis_angle,
    mirrored,
    mirrored_axis_angle,
    to_6d,
    to_axis_angle,
)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def is_rotation(matrices: Tensor) -> bool:
    unit = torch.allclose(matrices @ matrices.mT, torch.eye(3), atol=1e-9)
    return unit and torch.allclose(torch.linalg.det(matrices), torch.ones(()), atol=1e-9)


def test_six_numbers_give_the_rotation_that_roma_gives() -> None:
    roma = pytest.importorskip("roma", reason="the oracle of rotations is not installed: pip install roma")
    numbers = torch.randn(3, 50, 6)
    numbers = numbers / numbers.norm(dim=-1, keepdim=True) * 2
    expected = roma.special_gramschmidt(numbers.unflatten(-1, (2, 3)).mT)
    torch.testing.assert_close(from_6d(numbers), expected, rtol=0, atol=1e-9)
    assert is_rotation(from_6d(numbers))
    torch.testing.assert_close(from_6d(to_6d(expected)), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("numbers", [[0.0] * 6, [1.0, 2, 3, 1, 2, 3]])
def test_six_numbers_that_span_no_plane_give_finite_numbers_and_gradients(numbers: list[float]) -> None:
    given = torch.tensor(numbers, requires_grad=True)
    rotation = from_6d(given)
    rotation.sum().backward()
    assert rotation.isfinite().all()
    assert given.grad is not None
    assert given.grad.isfinite().all()


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-3, 1.0, 3.0, math.pi - 1e-7])
def test_axes_with_angles_are_scipys_rotations_and_come_back(angle: float) -> None:
    axes = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    vectors = (angle * axes).requires_grad_()
    rotation = from_axis_angle(vectors)
    expected = torch.from_numpy(Rotation.from_rotvec(vectors.detach().numpy()).as_matrix())
    torch.testing.assert_close(rotation.detach(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(to_axis_angle(rotation.detach()), vectors.detach(), rtol=0, atol=1e-9)
    rotation.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_half_turns_about_every_axis_come_back_as_the_same_rotation() -> None:
    vectors = math.pi * torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    rotation = from_axis_angle(torch.cat((vectors, math.pi * torch.eye(3))))
    torch.testing.assert_close(from_axis_angle(to_axis_angle(rotation)), rotation, rtol=0, atol=1e-12)


def test_a_turn_through_180_degrees_has_no_jump_in_six_numbers() -> None:
    angles = math.pi + torch.linspace(-0.01, 0.01, 21)
    numbers = to_6d(from_axis_angle(angles[:, None] * torch.tensor([0.6, 0.0, 0.8])))
    assert numbers.diff(dim=0).abs().max() < 0.0011  # steps of 0.001 rad


def test_a_mirrored_rotation_moves_mirrored_points_to_where_the_mirror_shows_them() -> None:
    vectors, points = torch.randn(20, 3), torch.randn(20, 3)
    mirror = torch.tensor([-1.0, 1, 1])
    rotation = from_axis_angle(vectors)
    seen = (rotation @ points[..., None]).squeeze(-1) * mirror
    torch.testing.assert_close(
        (mirrored(rotation) @ (points * mirror)[..., None]).squeeze(-1), seen, rtol=0, atol=1e-14
    )
    torch.testing.assert_close(from_axis_angle(mirrored_axis_angle(vectors)), mirrored(rotation), rtol=0, atol=1e-14)
    assert torch.equal(mirrored(mirrored(rotation)), rotation)
