"""What a training on hands minimises: how far vertices and keypoints are off, in space and in the picture."""

import torch
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.task import Moment, Objective
from hybridvit.tasks.hand.config import HandLossConfig
from hybridvit.tasks.hand.metric import KEYPOINTS, VERTICES

POINTS, ROTATIONS = "points", "rotations"


class HandObjective(Objective):
    """The weighted sum of means over hands, points and axes; `terms` has each as it counts.

    Vertices and keypoints are measured from one keypoint, places in the picture from its centre. The camera is learnt
    by the last term alone: how far away a hand is cannot be seen in one picture.
    """

    def __init__(self, config: HandLossConfig) -> None:
        self._config = config

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        """The sum. Lengths in space are in units of `unit_m`; points off the crop count as all others do."""
        config, given, true = self._config, model(batch.inputs), batch.targets
        own, root = (keypoints[:, config.root, None] for keypoints in (given.keypoints, true[KEYPOINTS]))
        squares = config.kind == "metro"
        vertices = _mean(given.vertices - own - (true[VERTICES] - root), config.unit_m, squares=False)
        keypoints = _mean(given.keypoints - own - (true[KEYPOINTS] - root), config.unit_m, squares=squares)
        points = _mean(seen(given.keypoints, given.camera) - true[POINTS], 1.0, squares=squares)
        terms = {
            "loss_vertices": config.vertices * vertices,
            "loss_keypoints": config.keypoints * keypoints,
            "loss_points": config.points * points,
        }
        if config.rotations:
            terms["loss_rotations"] = config.rotations * _mean(given.rotations - true[ROTATIONS], 1.0, squares=True)
        self.terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()


def seen(points: Tensor, camera: Tensor) -> Tensor:
    """Where points from the wrist (b n 3) lie in the picture (b n 2), from -1 to 1, by weak perspective (b 3)."""
    return camera[:, None, :1] * points[..., :2] + camera[:, None, 1:]


def _mean(difference: Tensor, unit: float, *, squares: bool) -> Tensor:
    difference = difference / unit
    return (difference * difference if squares else difference.abs()).mean()
