"""A hand is told, drawn where it is, mirrored for left hands, and written for other programs."""

import io
import json

import hands
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import UsageError
from hybridvit.tasks.hand.drawn.raster import rasterise
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.keypoints import KEYPOINTS
from hybridvit.tasks.hand.result import results_of

CARD = ModelCard(architecture="fastvit_debug", task="hand", preprocessing=Preprocessing(image_size=(64, 96)))
GREY = (90, 90, 90)


def picture(size: tuple[int, int] = (hands.SIDE, hands.SIDE)) -> Image.Image:
    return Image.new("RGB", size[::-1], GREY)


def changed(drawn: Image.Image) -> np.ndarray:
    return (np.asarray(drawn) != GREY).any(2)


def test_json_has_the_numbers_in_the_units_that_their_names_say() -> None:
    said = hands.answer()
    (result,) = results_of(said, [hands.frame(30, 10, (200, 300))], CARD, generated_hand())
    told = json.loads(json.dumps(result.to_dict()))
    assert (told["side"], told["hand"], told["box"]) == ("right", "generated", [30, 10, 120, 120])
    assert told["keypoint_names"] == list(KEYPOINTS)
    np.testing.assert_allclose(told["keypoints_mm"], said["keypoints"][0] * 1000, atol=6e-4)
    x, y, _ = said["keypoints"][0][8]
    wanted = [30 + 60 * (6 * x + 0.02 + 1), 10 + 60 * (6 * y + 0.5 + 1)]
    np.testing.assert_allclose(told["keypoints_px"][8], wanted, atol=6e-3)
    assert told["camera"] == {"scale_per_m": 6.0, "x": 0.02, "y": 0.5}
    quaternions, vectors = told["quaternions_xyzw"], np.reshape(told["axis_angle_with_mean"], (16, 3))
    np.testing.assert_allclose(Rotation.from_quat(quaternions).as_matrix(), said["rotations"][0], atol=1e-5)
    np.testing.assert_allclose(Rotation.from_rotvec(vectors).as_matrix(), said["rotations"][0], atol=1e-5)
    np.testing.assert_allclose(told["shape"], said["shape"][0], atol=1e-5)
    assert told["angles_deg"]["index_pip_bend"] == pytest.approx(result.angles["index_pip_bend"], abs=0.06)
    assert "warning" not in told


def test_what_an_exported_file_leaves_out_is_left_out() -> None:
    said = {name: values for name, values in hands.answer().items() if name not in ("rotations", "shape")}
    (result,) = results_of(said, [None], CARD, generated_hand())
    told = result.to_dict()
    assert told["box"] == [0, 0, 96, 64], "the whole input"
    assert not {"quaternions_xyzw", "axis_angle_with_mean", "angles_deg", "shape"} & set(told)
    assert len(result.lines()) == 1
    assert "rotations" not in np.load(io.BytesIO(result.files()["npz"]))
    with pytest.raises(UsageError, match=r"gives camera, rotations, so there is no mesh in its answers\. Call what"):
        results_of({"camera": np.zeros((1, 3)), "rotations": np.zeros((1, 16, 3, 3))}, [None], CARD, generated_hand())


def test_the_mesh_is_drawn_over_the_hand_and_nowhere_else() -> None:
    result = hands.result(frame=hands.frame(40, 20, (160, 200)))
    points = result.pixels(result.vertices)
    mask = rasterise(points, result.vertices[:, 2] + 1, result.assets.faces, (160, 200)).mask
    drawn = changed(result.draw(picture((160, 200))))[:145]  # the caption is below
    mask = mask[:145]
    assert (drawn & mask).sum() > 0.99 * mask.sum()
    assert (drawn & ~mask).sum() < 0.12 * mask.sum(), "edges and bones"
    plain = result.draw(picture((160, 200)))
    assert changed(plain)[145:, :90].any(), "generated hand"
    assert picture((160, 200)).size == plain.size


def test_a_hand_outside_of_the_picture_or_in_a_tiny_one_is_drawn_too() -> None:
    away = hands.result(camera=np.array((6.0, 9.0, 0.0)))
    assert not changed(away.draw(picture()))[:100].any()
    assert hands.result().draw(picture((24, 24)).convert("L")).size == (24, 24)
    huge = hands.result(camera=np.array((300.0, 0.0, 0.0)))
    assert changed(huge.draw(picture())).mean() > 0.9


def test_the_report_shows_picture_mesh_and_two_turned_views_with_the_truth_as_an_outline() -> None:
    result = hands.result(in_row=True, truth=hands.result().vertices + np.array((0.02, 0, 0.02)))
    row = np.asarray(result.draw(picture())).astype(int)
    assert row.shape == (160, 640, 3)
    pink = (row[..., 0] > 200) & (row[..., 1] < 90) & (row[..., 2] > 100)
    for start, there in ((0, False), (160, True), (320, True), (480, True)):
        assert pink[:, start : start + 160].any() == there
    assert (row[:140, :160] == 90).all(), "the picture as it is"


def test_a_left_hand_is_the_mirror_image_of_what_the_model_saw() -> None:
    said = hands.answer()
    (right,) = results_of(said, [hands.frame()], CARD, generated_hand())
    (left,) = results_of(said, [hands.frame()], CARD, generated_hand(), side="left")
    assert (left.side, left.to_dict()["side"]) == ("left", "left")
    for of in ("vertices", "keypoints"):
        seen, mirrored = right.pixels(getattr(right, of)), left.pixels(getattr(left, of))
        np.testing.assert_allclose(mirrored, (hands.SIDE, 0) + seen * (-1, 1), atol=1e-9)
    assert left.angles == pytest.approx(right.angles)
    one, other = (np.asarray(each.draw(picture()).crop((0, 0, 120, 100)), int) for each in (right, left))
    off = np.abs(one - other[:, ::-1]).mean(2)
    assert (off > 40).mean() < 0.03, "light comes from the same side, and lines have other pixels"
    assert not left.agrees(right)


def test_files_are_of_the_mesh_and_say_whose_it_is() -> None:
    files = hands.result().files()
    assert set(files) == {"obj", "ply", "glb", "views.png", "npz"}
    for name in ("obj", "ply", "glb"):
        assert b"generated hand, Apache-2.0" in files[name]
    arrays = np.load(io.BytesIO(files["npz"]))
    np.testing.assert_array_equal(arrays["rotations"], hands.result().rotations)
    with Image.open(io.BytesIO(files["views.png"])) as views:
        assert views.size == (640, 320)


def test_lines_say_where_the_hand_is_and_warn_of_a_bad_crop() -> None:
    first, bent = hands.result().lines()
    assert first.startswith("  right hand, ")
    assert bent.startswith("  bent by degrees: thumb ")
    small = hands.result(camera=np.array((1.0, 0.0, 0.0)))
    assert small.lines()[-1].startswith("  The hand would fill ")
    assert "give the hand's box" in small.to_dict()["warning"]


def test_answers_agree_that_a_person_cannot_tell_apart() -> None:
    result = hands.result()
    assert result.agrees(hands.result(vertices=result.vertices + 0.0005))
    assert not result.agrees(hands.result(vertices=result.vertices + np.array((0, 0, 0.002))))
    assert not result.agrees(hands.result(camera=result.camera + np.array((0, 0.1, 0))))
