"""The head of hands: a camera, rotations and a shape from one vector, and the hand that they make (FastViT, 4.3)."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.models.with_head import Head
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import JOINTS, PALM
from hybridvit.tasks.hand.mano.layer import HandLayer, JointKind, full_precision
from hybridvit.tasks.hand.mano.rotation import from_6d, from_axis_angle, to_6d

CAMERA = (0.6, 0.0, 0.0)  # at the start: a span of 0.2 m over half a picture's side in units of 0.1 m, in its centre
UNIT_M = 0.1  # of the camera's scale as the network gives it
GAIN = 0.01  # of the start: the first answer is nearly the mean hand, whatever the picture
NUM_SHAPES = 10


class HandAnswer(NamedTuple):
    """A hand as the camera sees it: lengths in metres from the wrist, x to the right, y down, z away."""

    vertices: Float[Tensor, "b v 3"]
    keypoints: Float[Tensor, "b 21 3"]
    camera: Float[Tensor, "b 3"]  # s per metre, tx, ty: a point lies at s X_xy + t, from -1 to 1 across the picture
    rotations: Float[Tensor, "b 16 3 3"]
    shape: Float[Tensor, "b 10"]


class HandMesh(Head):
    """Three linear layers on the mean of the backbone's last map, and the hand layer, all in 32 bits.

    At the start it gives the mean hand, as HMR (Kanazawa et al., 2018) begins: predictions are differences from it.
    """

    class_layers = ()
    in_float32: ClassVar[bool] = True

    def __init__(self, channels: Sequence[int], assets: HandAssets, joints: JointKind = "freihand") -> None:
        super().__init__()
        self.camera = nn.Linear(channels[-1], 3)
        self.pose = nn.Linear(channels[-1], 6 * len(JOINTS))
        self.shape = nn.Linear(channels[-1], NUM_SHAPES)
        self.layer = HandLayer(assets, joints).to(torch.get_default_device())
        for linear, start in (
            (self.camera, torch.tensor(CAMERA)),
            (self.pose, _mean_pose(assets)),
            (self.shape, torch.zeros(NUM_SHAPES)),
        ):
            nn.init.xavier_uniform_(linear.weight, GAIN)
            with torch.no_grad():
                linear.bias.copy_(start)

    def forward(
        self, maps: Sequence[Float[Tensor, "b f oh ow"]], images: Float[Tensor, "b c h w"], *more: Any
    ) -> HandAnswer:
        with full_precision(images.device):
            pooled = maps[-1].to(self.camera.weight.dtype).mean((2, 3))
            camera = self.camera(pooled)
            rotations = from_6d(self.pose(pooled).unflatten(-1, (len(JOINTS), 6)))  # b 16 3 3
            shape = self.shape(pooled)
            hand = self.layer(rotations, shape)
            wrist = hand.keypoints[:, :1]
            scale, place = camera[:, :1] / UNIT_M, camera[:, 1:]
            return HandAnswer(
                vertices=hand.vertices - wrist,
                keypoints=hand.keypoints - wrist,
                camera=torch.cat((scale, place), dim=1),
                rotations=rotations,
                shape=shape,
            )


def _mean_pose(assets: HandAssets) -> Float[Tensor, "96"]:
    """The six numbers of each joint's mean rotation; the palm faces the camera."""
    fingers = from_axis_angle(torch.from_numpy(assets.pose_mean).float().unflatten(0, (-1, 3)))
    palm = torch.tensor(PALM, device=fingers.device)
    return to_6d(torch.cat((palm[None], fingers))).flatten()
