"""Pictures, points and cameras agree after augmentation, by construction."""

import numpy as np
import pytest
import torch
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.data.seeding import seeded
from hybridvit.tasks.hand.augment import drawn_gains, drawn_view, resampled
from hybridvit.tasks.hand.config import HandAugmentConfig
from hybridvit.tasks.hand.freihand.camera import (
    about_z,
    from_corner,
    normalised,
    projected,
    root_position,
    turned_view,
    upright_view,
)

WIDE = HandAugmentConfig(rotation_deg=90, rotation_share=0.8, scale=0.25, shift=0.1, channel_gain=0.4)
CAMERA = np.array([[480.0, 0.0, 111.3], [0.0, 510.0, 115.9], [0.0, 0.0, 1.0]])


def test_every_draw_moves_points_as_it_moves_the_picture():
    worst = 0.0
    for draw in range(50):
        points = np.random.default_rng(draw).normal((0, 0, 0.7), 0.06, (21, 3))
        with seeded("draw", draw):
            view = drawn_view(WIDE, (240, 224), (128, 128))
        in_picture = np.concatenate([projected(from_corner(CAMERA), points), np.ones((21, 1))], 1)
        wanted = (in_picture @ view.matrix.T)[:, :2]
        found = projected(view.camera(from_corner(CAMERA)), view.points(points))
        worst = max(worst, float(np.abs(normalised(found, view.size) - normalised(wanted, view.size)).max()))
    assert worst <= 1e-12


def test_draws_follow_the_options():
    with seeded("draws"):
        views = [drawn_view(WIDE, (224, 224), (224, 224)) for _ in range(400)]
        gains = np.array([drawn_gains(WIDE) for _ in range(400)])
    angles = np.degrees([view.angle for view in views])
    assert 0.72 < (angles != 0).mean() < 0.88
    assert np.abs(angles).max() <= 180
    assert np.std(angles[angles != 0]) == pytest.approx(85, abs=8)
    parts = 1 / np.array([view.scale for view in views])
    assert parts.min() == pytest.approx(0.75)
    assert parts.max() == pytest.approx(1.25)
    assert 0.6 <= gains.min() < 0.62 and 1.38 < gains.max() <= 1.4  # noqa: PT018


def test_nothing_is_changed_where_all_options_are_zero():
    still = HandAugmentConfig(rotation_share=0, scale=0, channel_gain=0)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    view = drawn_view(still, (48, 48), (48, 48))
    np.testing.assert_array_equal(view.matrix, np.eye(3))
    np.testing.assert_array_equal(resampled(Image.fromarray(pixels), view, drawn_gains(still)).permute(1, 2, 0), pixels)


@pytest.mark.parametrize("draw", range(6))
@pytest.mark.parametrize("side", [64, 160])
def test_a_white_square_is_found_where_the_camera_says(draw, side):
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels[80:91, 120:131] = 255
    ray = np.linalg.solve(CAMERA, [125.0, 85.0, 1.0])  # of the pixel in its middle
    place = 0.65 * ray
    with seeded("square", draw):
        view = drawn_view(WIDE, (224, 224), (side, side))
    shown = resampled(Image.fromarray(pixels), view)[0].double()
    across = torch.arange(side).double() + 0.5
    found = [float((shown.sum(axis) * across).sum() / shown.sum()) for axis in (0, 1)]
    wanted = projected(view.camera(from_corner(CAMERA)), view.points(place[None]))[0]
    assert found == pytest.approx(wanted, abs=0.1)


def test_beyond_the_border_the_picture_is_mirrored():
    pixels = np.full((32, 32, 3), 200, np.uint8)
    view = turned_view((32, 32), (32, 32), angle=0.7, part=1.5, shift=(0.2, 0.1))
    assert (resampled(Image.fromarray(pixels), view) == 200).all()


def test_where_pixels_become_fewer_each_is_a_mean():
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[::2] = 200
    view = turned_view((128, 128), (32, 32), angle=0.0, part=1.0, shift=(0.0, 0.0))
    assert (resampled(Image.fromarray(pixels), view).float() - 100).abs().max() <= 1


def test_a_crop_without_a_turn_is_its_frame():
    frame = Frame(picture_size=(300, 400), crop=(50.0, 10.0, 300.0, 280.0), input_size=(64, 96))
    corners = np.array([[50.0, 10.0, 1.0], [350.0, 290.0, 1.0], [200.0, 150.0, 1.0]])
    np.testing.assert_allclose(
        (corners @ upright_view(frame).matrix.T)[:, :2], [[0, 0], [96, 64], [48, 32]], atol=1e-12
    )


def test_the_centre_of_the_first_pixel_is_half_a_pixel_from_the_corner():
    points = np.random.default_rng(1).normal((0, 0, 0.7), 0.05, (5, 3))
    np.testing.assert_allclose(projected(from_corner(CAMERA), points), projected(CAMERA, points) + 0.5, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.8])
def test_the_root_is_found_from_a_weak_perspective(angle):
    view = turned_view((224, 224), (128, 128), angle=angle, part=0.9, shift=(0.05, 0.0))
    even = np.array([[480.0, 0.0, 111.0], [0.0, 480.0, 115.0], [0.0, 0.0, 1.0]])
    root, camera = np.array([0.03, -0.05, 0.7]), view.camera(from_corner(even))
    turned = view.points(root[None])[0]
    scale = 2 * 480 * view.scale / (128 * 0.7)  # normalised units of a metre at that depth
    weak = np.array([scale, *normalised(projected(camera, turned[None])[0], view.size)])
    np.testing.assert_allclose(root_position(weak, camera, view.size), turned, atol=1e-12)


def test_a_hand_without_a_size_is_far_away():
    assert root_position(np.zeros(3), CAMERA, (224, 224))[2] > 1000


def test_a_turn_goes_from_right_to_down():
    np.testing.assert_allclose(about_z(np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
