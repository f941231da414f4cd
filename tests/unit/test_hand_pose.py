"""MANO's parameters and rotations: with and without the mean pose, and by components."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from hybridvit.errors import UsageError
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.pose import from_mano, from_pca, to_mano
from hybridvit.tasks.hand.mano.rotation import mirrored, mirrored_axis_angle


def hands() -> list[HandAssets]:
    return [generated_hand(), generated_hand().mirrored()]


@pytest.mark.parametrize("hand", hands(), ids=["right", "left"])
def test_the_mean_pose_is_added_to_all_joints_but_the_wrist(hand: HandAssets) -> None:
    pose = 0.3 * torch.randn(4, 48, dtype=torch.float64)
    with_mean = pose.clone()
    with_mean[:, 3:] += torch.from_numpy(hand.pose_mean)
    expected = Rotation.from_rotvec(with_mean.reshape(-1, 3).numpy()).as_matrix().reshape(4, 16, 3, 3)
    for rotations in (from_mano(pose, hand), from_mano(with_mean, hand, mean_included=True)):
        torch.testing.assert_close(rotations, torch.from_numpy(expected), rtol=0, atol=1e-12)
        torch.testing.assert_close(to_mano(rotations, hand), pose, rtol=0, atol=1e-12)
        torch.testing.assert_close(to_mano(rotations, hand, mean_included=True), with_mean, rtol=0, atol=1e-12)


def test_components_add_up_on_the_mean_pose() -> None:
    hand, wrist = generated_hand(), torch.tensor([0.1, 0.2, 0.3])
    amounts = torch.randn(7)
    pose = sum(amount * torch.from_numpy(row) for amount, row in zip(amounts, hand.pose_components, strict=False))
    expected = from_mano(torch.cat((wrist, pose.float())), hand)
    torch.testing.assert_close(from_pca(wrist, amounts, hand), expected)
    with pytest.raises(UsageError, match="46 amounts of components are given, but a hand has 45"):
        from_pca(wrist, torch.zeros(46), hand)


def test_parameters_of_the_left_hand_are_the_mirrored_ones_of_the_right() -> None:
    right, left = hands()
    pose, amounts = 0.3 * torch.randn(48, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    seen = mirrored_axis_angle(pose.unflatten(-1, (16, 3))).flatten()
    torch.testing.assert_close(from_mano(seen, left), mirrored(from_mano(pose, right)), rtol=0, atol=1e-14)
    by_components = from_pca(seen[:3], amounts, left)
    torch.testing.assert_close(by_components, mirrored(from_pca(pose[:3], amounts, right)), rtol=0, atol=1e-14)
