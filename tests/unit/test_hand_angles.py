"""Angles of joints are those that the joints were turned by, and smoothing takes jitter away, not motion."""

import json
from dataclasses import replace

import hands
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvit.tasks.hand.mano.angles import LIMITS, beyond_limits, in_wrist_frame, joint_angles, joint_axes
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_assets import MIRROR
from hybridvit.tasks.hand.mano.keypoints import JOINTS
from hybridvit.tasks.hand.mano.quaternion import nearest_rotation
from hybridvit.tasks.hand.smoothing import HandSmoother, OneEuro, OneEuroConfig, jitter_mm
from hybridvit.tasks.hand.together import moved, of_video, smoothed


def test_angles_are_those_that_the_joints_were_turned_by() -> None:
    assets, dice = generated_hand(), np.random.default_rng(0)
    wanted = dice.uniform(-40, 80, (15, 3))  # twist, spread, bend
    local = Rotation.from_euler("XYZ", wanted * (1, 1, -1), degrees=True).as_matrix()
    axes = joint_axes(assets)
    rotations = np.concatenate((Rotation.random(random_state=0).as_matrix()[None], axes @ local @ axes.swapaxes(1, 2)))
    found = np.array(list(joint_angles(rotations, assets).values())).reshape(15, 3)
    np.testing.assert_allclose(found, wanted[:, ::-1], atol=1e-9)
    mirrored = rotations * MIRROR[:, None] * MIRROR
    left = joint_angles(mirrored, assets.mirrored())
    np.testing.assert_allclose(list(left.values()), found.ravel(), atol=1e-9)


def test_bending_towards_the_palm_and_spreading_to_the_thumb_are_positive() -> None:
    assets = generated_hand()
    rest = np.tile(np.eye(3), (16, 1, 1))
    assert all(value == pytest.approx(0) for value in joint_angles(rest, assets).values())
    about_z, about_y = (Rotation.from_rotvec(np.radians(30) * axis).as_matrix() for axis in np.eye(3)[[2, 1]])
    for finger in ("index", "middle", "ring", "little"):
        turned = rest.copy()
        turned[JOINTS.index(f"{finger}_2")] = about_z
        turned[JOINTS.index(f"{finger}_1")] = about_y
        found = joint_angles(turned, assets)
        assert found[f"{finger}_pip_bend"] == pytest.approx(30, abs=2)
        assert found[f"{finger}_mcp_spread"] == pytest.approx(30, abs=2)


def test_limits_name_what_no_hand_does() -> None:
    assets = generated_hand()
    rest = joint_angles(np.tile(np.eye(3), (16, 1, 1)), assets)
    assert set(rest) == set(LIMITS)
    assert beyond_limits(rest) == []
    assert beyond_limits(rest | {"ring_pip_bend": -30.0, "thumb_ip_bend": 93.0}) == ["ring_pip_bend"]


def test_keypoints_in_the_frame_of_the_wrist_do_not_turn_with_the_hand() -> None:
    result = hands.result()
    turn = Rotation.random(random_state=3).as_matrix()
    assert result.rotations is not None
    moved = in_wrist_frame(result.keypoints @ turn.T + 5, (turn @ result.rotations[0])[None])
    np.testing.assert_allclose(moved, in_wrist_frame(result.keypoints, result.rotations), atol=1e-9)
    assert moved[12, 0] < -0.05, "the middle finger points to -x"


def test_jitter_goes_and_motion_stays() -> None:
    dice, seconds = np.random.default_rng(0), np.arange(120) / 30
    path = np.where(seconds < 2, 0.0, 4 * (seconds - 2))  # rests, then moves
    noisy = path + dice.normal(0, 0.01, 120)
    filtered = OneEuro(OneEuroConfig(rest_hz=1, speed_gain=1))
    smooth = np.array([filtered(np.array([value]), when)[0] for value, when in zip(noisy, seconds, strict=True)])
    assert np.std(smooth[20:60]) < 0.4 * np.std(noisy[20:60])
    assert np.abs(smooth - path)[-30:].max() < 0.3, "a quarter of a radian behind at 4 a second"
    slow = OneEuro(OneEuroConfig(rest_hz=1, speed_gain=0))
    behind = [slow(np.array([value]), when)[0] for value, when in zip(noisy, seconds, strict=True)]
    assert path[-1] - behind[-1] > 0.5


def test_a_smoothed_hand_shakes_less_and_its_rotations_are_rotations() -> None:
    dice, said = np.random.default_rng(1), hands.answer()
    smoother, before, after = HandSmoother(), [], []
    for number in range(40):
        noise = Rotation.from_rotvec(dice.normal(0, 0.05, (16, 3))).as_matrix()
        turned = said["rotations"][0] @ noise
        rotations, shape, camera = smoother(turned, said["shape"][0], said["camera"][0], number / 30)
        before.append(turned)
        after.append(rotations)
        np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (16, 1, 1)), atol=1e-9)
        np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(shape, said["shape"][0])
    np.testing.assert_allclose(camera, said["camera"][0])
    assert jitter_mm(np.stack(after)[10:]) < 0.4 * jitter_mm(np.stack(before)[10:])
    with pytest.raises(ValueError, match=r"A frame at 1 s follows one at 1.3 s. Show the frames of a video in their"):
        smoother(turned, shape, camera, 1.0)


def test_the_hand_of_a_video_is_smoothed_and_what_that_changed_is_written() -> None:
    dice, still = np.random.default_rng(2), hands.result()
    assert still.rotations is not None
    frames = [
        hands.result(
            rotations=turned,
            vertices=moved(still.assets, turned[None].astype(np.float32), still.shape[None].astype(np.float32))[0][0],
        )
        for turned in (
            still.rotations @ Rotation.from_rotvec(dice.normal(0, 0.05, (16, 3))).as_matrix() for _ in range(12)
        )
    ]
    times = [number / 30 for number in range(12)]
    motion = json.loads(of_video(frames, times)["motion.json"])
    assert motion["jitter_smoothed_mm"] < 0.4 * motion["jitter_mm"]
    assert 0 < motion["skin_mean_mm"] < 1
    unknown = [replace(each, rotations=None, shape=None) for each in frames]
    assert smoothed(unknown, times) == unknown


def test_jitter_is_the_length_of_second_differences() -> None:
    evenly = np.arange(5)[:, None, None] * np.ones((5, 4, 3))
    assert jitter_mm(evenly) == 0
    assert jitter_mm(evenly[:2]) == 0
    back_and_forth = np.zeros((3, 1, 3))
    back_and_forth[1, 0, 0] = 0.001
    assert jitter_mm(back_and_forth) == pytest.approx(2)
    reflected = np.diag((1.0, 1.0, -1.0))
    assert np.linalg.det(nearest_rotation(reflected)) == pytest.approx(1)
