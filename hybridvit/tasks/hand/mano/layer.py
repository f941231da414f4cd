"""The hand layer: mesh and keypoints from the rotations of 16 joints and a shape (MANO: Romero et al., 2017)."""

from contextlib import nullcontext
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import CHAIN_FINGERS, KEYPOINTS_OF_JOINTS

JointKind = Literal["freihand", "chain"]
LEVELS = 3  # joints of a finger


class Hand(NamedTuple):
    """A mesh and its keypoints, in metres; the wrist is where the shape has it at rest."""

    vertices: Float[Tensor, "b v 3"]
    keypoints: Float[Tensor, "b 21 3"]  # in the order of `keypoints.KEYPOINTS`


class HandLayer(nn.Module):
    """Moves the mesh of a hand. It has no weights, and its arrays are in no state dict: they are MANO's, not ours.

    Joints are either those of FreiHAND, which are regressed from the moved mesh, or the points that the chain turns
    about: 1 to 3 mm apart where fingers are bent. Fingertips are the vertices that the assets name. The layer computes
    in the precision of its buffers, under autocast too: a step of 16 bit numbers is a tenth of a millimetre here.
    """

    template: Tensor  # v 3
    shape_moves: Tensor  # 10 3v
    pose_moves: Tensor  # 135 3v
    weights: Tensor  # v 16
    joint_template: Tensor  # 16 3
    joint_moves: Tensor  # 10 48
    keypoint_rows: Tensor  # 21 v: of the moved mesh
    tips: Tensor  # 5

    def __init__(self, assets: HandAssets, joints: JointKind = "freihand") -> None:
        super().__init__()
        self.joints = joints
        regressor, moves = assets.joint_regressor, assets.shapedirs
        one_hot = np.eye(len(assets.v_template))[assets.tips]
        real = {
            "template": assets.v_template,
            "shape_moves": moves.transpose(2, 0, 1).reshape(moves.shape[-1], -1),
            "pose_moves": assets.posedirs.transpose(2, 0, 1).reshape(assets.posedirs.shape[-1], -1),
            "weights": assets.weights,
            "joint_template": regressor @ assets.v_template,
            "joint_moves": np.einsum("jv,vck->kjc", regressor, moves).reshape(moves.shape[-1], -1),
            "keypoint_rows": np.concatenate([regressor, one_hot])[list(KEYPOINTS_OF_JOINTS)],
        }
        for name, array in real.items():
            self.register_buffer(name, _tensor(array).to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("tips", _tensor(assets.tips), persistent=False)

    def forward(self, rotations: Float[Tensor, "b 16 3 3"], shape: Float[Tensor, "b 10"]) -> Hand:
        """The hand whose joints are turned so, each within its parent; the wrist turns all of it about itself."""
        with full_precision(rotations.device):
            return self._moved(rotations.to(self.template.dtype), shape.to(self.template.dtype))

    def _moved(self, rotations: Tensor, shape: Tensor) -> Hand:
        bent = (rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)).flatten(1)  # b 135
        rest = self.template + (shape @ self.shape_moves + bent @ self.pose_moves).unflatten(-1, (-1, 3))  # b v 3
        joints = self.joint_template + (shape @ self.joint_moves).unflatten(-1, (-1, 3))  # b 16 3
        turns, places = _chain(rotations, joints)
        shifts = places - _turned(turns, joints)
        motions = self.weights @ torch.cat((turns.flatten(2), shifts), dim=-1)  # b v 12
        vertices = _turned(motions[..., :9].unflatten(-1, (3, 3)), rest) + motions[..., 9:]
        if self.joints == "freihand":
            return Hand(vertices, self.keypoint_rows @ vertices)
        return Hand(vertices, torch.cat((places, vertices[:, self.tips]), dim=1)[:, list(KEYPOINTS_OF_JOINTS)])


def _chain(rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
    """How each joint is turned in space (b 16 3 3) and where it is (b 16 3), by levels over all fingers at once."""
    by_finger = (len(CHAIN_FINGERS), LEVELS)
    own, at = rotations[:, 1:].unflatten(1, by_finger), joints[:, 1:].unflatten(1, by_finger)  # b finger level ...
    turn, place, before = rotations[:, :1], joints[:, :1], joints[:, :1]  # of the wrist
    turns, places = [], []
    for level in range(LEVELS):
        place = place + _turned(turn, at[:, :, level] - before)
        turn = turn @ own[:, :, level]
        before = at[:, :, level]
        turns.append(turn)
        places.append(place)
    all_turns = torch.stack(turns, dim=2).flatten(1, 2)  # b finger level ... -> b joint ...
    all_places = torch.stack(places, dim=2).flatten(1, 2)
    return torch.cat((rotations[:, :1], all_turns), dim=1), torch.cat((joints[:, :1], all_places), dim=1)


def _turned(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each matrix (... 3 3) times its vector (... 3): products of such small matrices are slower."""
    return (matrices * vectors[..., None, :]).sum(-1)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def full_precision(device: torch.device) -> "torch.autocast | nullcontext[None]":
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):  # meta has none
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
