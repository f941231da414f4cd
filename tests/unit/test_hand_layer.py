"""The hand layer: against loops in NumPy, and what must hold of any hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import FINGERS, JOINTS, KEYPOINTS, PARENTS
from hybridvit.tasks.hand.mano.layer import HandLayer, JointKind
from hybridvit.tasks.hand.mano.rotation import from_6d, from_axis_angle, mirrored


def layer_of(assets: HandAssets, dtype: torch.dtype = torch.float64, joints: JointKind = "freihand") -> HandLayer:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return HandLayer(assets, joints)
    finally:
        torch.set_default_dtype(default)


def drawn(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    pose = 0.7 * torch.randn(batch, 16, 3, generator=generator, dtype=torch.float64)
    return from_axis_angle(pose), torch.randn(batch, 10, generator=generator, dtype=torch.float64)


def by_loop(assets: HandAssets, rotations: np.ndarray, shape: np.ndarray, joints: str) -> tuple[np.ndarray, np.ndarray]:
    """One hand, from the equations, with 4 x 4 matrices, a joint and a vertex at a time."""
    rest = assets.v_template.copy()
    for number, amount in enumerate(shape):
        rest += amount * assets.shapedirs[:, :, number]
    at = assets.joint_regressor @ rest
    for joint in range(1, 16):
        for entry in range(9):
            amount = rotations[joint].ravel()[entry] - np.eye(3).ravel()[entry]
            rest += amount * assets.posedirs[:, :, 9 * (joint - 1) + entry]
    world = []
    for joint, parent in enumerate(PARENTS):
        own = np.eye(4)
        own[:3, :3] = rotations[joint]
        own[:3, 3] = at[joint] - (at[parent] if parent >= 0 else 0)
        world.append(world[parent] @ own if parent >= 0 else own)
    away = [
        matrix @ np.block([[np.eye(3), -at[joint][:, None]], [np.zeros(3), 1]]) for joint, matrix in enumerate(world)
    ]
    vertices = np.stack([
        sum(weight * (matrix @ [*point, 1])[:3] for weight, matrix in zip(weights, away, strict=True))
        for point, weights in zip(rest, assets.weights, strict=True)
    ])  # fmt: skip
    places = assets.joint_regressor @ vertices if joints == "freihand" else np.stack([each[:3, 3] for each in world])
    named = dict(zip(JOINTS, places, strict=True))
    named |= {f"{finger}_tip": vertices[tip] for finger, tip in zip(FINGERS, assets.tips, strict=True)}
    return vertices, np.stack([named[name] for name in KEYPOINTS])


@pytest.mark.parametrize("joints", ["freihand", "chain"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_layer_is_the_equations_one_vertex_at_a_time(side: str, joints: JointKind) -> None:
    assets = generated_hand() if side == "right" else generated_hand().mirrored()
    for batch in (1, 5):
        rotations, shape = drawn(batch)
        hand = layer_of(assets, joints=joints)(rotations, shape)
        single = layer_of(assets, torch.float32, joints)(rotations.float(), shape.float())
        for place in {0, batch - 1}:
            expected = by_loop(assets, rotations[place].numpy(), shape[place].numpy(), joints)
            for found, in_single, wanted in zip(hand, single, expected, strict=True):
                assert np.abs(found[place].numpy() - wanted).max() < 1e-12
                assert np.abs(in_single[place].numpy() - wanted).max() < 1e-6


def test_joints_of_the_mesh_and_of_the_chain_are_millimetres_apart_and_tips_the_same() -> None:
    rotations, shape = drawn(5)
    regressed = layer_of(generated_hand())(rotations, shape).keypoints
    chain = layer_of(generated_hand(), joints="chain")(rotations, shape).keypoints
    apart = (regressed - chain).norm(dim=-1)
    assert apart[:, 4::4].max() < 1e-12  # 0 in all but rounding
    assert 1e-4 < apart.mean() < 5e-3


def test_gradients_through_six_numbers_and_shapes_are_those_of_differences() -> None:
    layer = layer_of(generated_hand())
    pick = torch.randint(778 * 3, (12,))
    numbers = torch.randn(1, 16, 6, dtype=torch.float64, requires_grad=True)
    shape = torch.randn(1, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: layer(from_6d(x), y).vertices.flatten()[pick], (numbers, shape))


def test_turning_the_wrist_turns_the_whole_hand_about_the_wrist() -> None:
    layer = layer_of(generated_hand(), joints="chain")
    rotations, shape = drawn(2)
    turn = from_axis_angle(torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64))
    before = layer(rotations, shape)
    after = layer(torch.cat((turn @ rotations[:, :1], rotations[:, 1:]), dim=1), shape)
    wrist = before.keypoints[:, :1]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, (old - wrist) @ turn.mT + wrist, rtol=0, atol=1e-15)


@pytest.mark.parametrize("joints", ["freihand", "chain"])
def test_the_left_hand_in_the_mirrored_pose_is_the_right_hand_in_the_mirror(joints: JointKind) -> None:
    right, left = (layer_of(each, joints=joints) for each in (generated_hand(), generated_hand().mirrored()))
    rotations, shape = drawn(3)
    mirror = torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    for one, other in zip(left(mirrored(rotations), shape), right(rotations, shape), strict=True):
        assert torch.equal(one, other * mirror)


def test_at_rest_the_hand_is_its_template() -> None:
    rest = layer_of(generated_hand())(torch.eye(3).expand(2, 16, 3, 3), torch.zeros(2, 10))
    assert np.abs(rest.vertices[1].numpy() - generated_hand().v_template).max() < 1e-16


def test_the_layer_computes_in_full_precision_under_autocast() -> None:
    layer, (rotations, shape) = HandLayer(generated_hand()), drawn(1)
    expected = layer(rotations.float(), shape.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(rotations.float(), shape.float()).vertices, expected.vertices)


def test_no_array_of_the_hand_is_in_a_state_dict() -> None:
    assert HandLayer(generated_hand()).state_dict() == {}


@pytest.mark.parametrize("joints", ["freihand", pytest.param("chain", marks=pytest.mark.nightly)])
def test_the_layer_exports_with_any_batch(joints: JointKind) -> None:
    layer = HandLayer(generated_hand(), joints)
    arguments = tuple(each.float() for each in drawn(2))
    batch = {0: torch.export.Dim("b")}
    program = torch.export.export(layer, arguments, dynamic_shapes=(batch, batch), strict=False)
    assert not [node for node in program.graph.nodes if str(node.target).partition(".")[0].endswith("_")]  # in place
    for count in (1, 5):
        given = tuple(each.float() for each in drawn(count))
        for found, wanted in zip(program.module()(*given), layer(*given), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)
