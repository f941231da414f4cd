"""The hand that is made up has the structure of MANO's, and is a hand."""

import numpy as np

from hybridvit.tasks.hand.mano.generated_fingers import FINGERS
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.generated_surface import distance
from hybridvit.tasks.hand.mano.keypoints import CHAIN_FINGERS


def test_the_mesh_is_counted_as_manos_and_closed_but_for_the_wrist() -> None:
    hand = generated_hand()
    assert hand.v_template.shape == (778, 3)
    assert hand.faces.shape == (1538, 3)
    assert len(np.unique(hand.faces)) == 778
    edges = np.concatenate([hand.faces[:, [0, 1]], hand.faces[:, [1, 2]], hand.faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)  # no two faces run along an edge in the same direction
    both, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    assert (len(both), counts.max(), (counts == 1).sum()) == (2315, 2, 16)
    border = both[counts == 1]
    wrist = hand.v_template[np.unique(border)]
    assert len(wrist) == 16
    assert np.ptp(wrist[:, 0]) < 1e-9


def test_its_faces_look_outwards_and_its_size_is_a_hands() -> None:
    hand = generated_hand()
    a, b, c = np.moveaxis(hand.v_template[hand.faces] - hand.v_template.mean(0), 1, 0)
    volume_ml = np.einsum("fc,fc->", np.cross(a, b), c) / 6 * 1e6
    assert 200 < volume_ml < 400
    span_mm = 1e3 * np.ptp(hand.v_template, axis=0)
    np.testing.assert_allclose(span_mm, [209, 53, 162], atol=3)
    edges_mm = 1e3 * np.linalg.norm(b - a, axis=1)
    assert 0.5 < edges_mm.min() < edges_mm.max() < 35


def test_its_vertices_lie_on_the_surface() -> None:
    off_mm = np.abs(distance(1e3 * generated_hand().v_template))
    assert off_mm.mean() < 0.03
    assert off_mm.max() < 1


def test_weights_and_regressor_sum_to_one_and_find_the_joints() -> None:
    hand = generated_hand()
    assert hand.weights.min() >= 0
    np.testing.assert_allclose(hand.weights.sum(1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(hand.joint_regressor.sum(1), 1, rtol=0, atol=1e-13)
    joints_mm = 1e3 * hand.joint_regressor @ hand.v_template
    for number, name in enumerate(CHAIN_FINGERS):
        finger = next(each for each in FINGERS if each.name == name)
        np.testing.assert_allclose(joints_mm[1 + 3 * number : 4 + 3 * number], finger.joints[:3], rtol=0, atol=1e-9)
        tip_mm = 1e3 * hand.v_template[hand.tips[FINGERS.index(finger)]]
        assert np.linalg.norm(tip_mm - finger.joints[3]) < 1


def test_each_shape_parameter_moves_the_hand_by_about_a_millimetre() -> None:
    moves_mm = 1e3 * np.linalg.norm(generated_hand().shapedirs, axis=1)
    assert (moves_mm.mean(0) > 0.4).all()
    assert (moves_mm.mean(0) < 2.5).all()
    assert moves_mm.max() < 8
    assert np.linalg.matrix_rank(generated_hand().shapedirs.reshape(-1, 10)) == 10


def test_components_are_at_right_angles() -> None:
    components = generated_hand().pose_components
    np.testing.assert_allclose(components @ components.T, np.eye(45), rtol=0, atol=1e-14)


def test_it_is_made_once_and_says_what_it_is() -> None:
    hand = generated_hand()
    assert hand is generated_hand()
    assert (hand.side, hand.kind, hand.licence) == ("right", "generated", "Apache-2.0")
