"""Poses as MANO's parameters have them, and as the layer does: rotations, with the mean pose in them."""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridvit.errors import UsageError
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.rotation import from_axis_angle, to_axis_angle


def from_mano(
    pose: Float[Tensor, "*b 48"], assets: HandAssets, *, mean_included: bool = False
) -> Float[Tensor, "*b 16 3 3"]:
    """The rotations of a pose in axis-angle: the wrist's three numbers, then 45 to which the mean pose is added.

    FreiHAND's are without the mean; of those of which it is a part, `mean_included`. The mesh looks nearly right when
    the two are confused, so it is never guessed.
    """
    vectors = pose if mean_included else torch.cat((pose[..., :3], pose[..., 3:] + _mean(assets, pose)), dim=-1)
    return from_axis_angle(vectors.unflatten(-1, (16, 3)))


def to_mano(
    rotations: Float[Tensor, "*b 16 3 3"], assets: HandAssets, *, mean_included: bool = False
) -> Float[Tensor, "*b 48"]:
    """The inverse of `from_mano`; every angle is at most pi before the mean is taken off."""
    vectors = to_axis_angle(rotations).flatten(-2)
    if mean_included:
        return vectors
    return torch.cat((vectors[..., :3], vectors[..., 3:] - _mean(assets, vectors)), dim=-1)


def from_pca(
    wrist: Float[Tensor, "*b 3"], amounts: Float[Tensor, "*b n"], assets: HandAssets
) -> Float[Tensor, "*b 16 3 3"]:
    """The rotations of the mean pose plus so much of each of the first n components; the wrist's in axis-angle.

    Raises UsageError for more amounts than there are components.
    """
    count, known = amounts.shape[-1], len(assets.pose_components)
    if count > known:
        raise UsageError(f"{count} amounts of components are given, but a hand has {known}. Give the first {known}.")
    components = torch.from_numpy(assets.pose_components[:count]).to(amounts)
    return from_mano(torch.cat((wrist, amounts @ components), dim=-1), assets)


def _mean(assets: HandAssets, like: Tensor) -> Tensor:
    return torch.from_numpy(assets.pose_mean).to(like)
