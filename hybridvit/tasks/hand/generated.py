"""Generated hands as coloured dots, for dry runs and tests: no files, and something to learn all the same."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.data.generated import both_sets
from hybridvit.data.loader import stacked
from hybridvit.data.seeding import generator, side_of_step
from hybridvit.tasks.hand.config import HandData
from hybridvit.tasks.hand.data import DrawnAs, HandSamples, target_of
from hybridvit.tasks.hand.freihand.camera import View, from_corner, projected
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.keypoints import PALM
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.rotation import from_axis_angle

FOCAL = 480 / 224  # of the side
DISTANCE_M, SPREAD_M = 0.7, 0.02
BEND, TURN = 0.15, 0.2  # radians
COLOURS = ((1.0, 1.0, 1.0), (2.0, 0.0, 0.0), (2.0, 2.0, 0.0), (0.0, 2.0, 0.0), (0.0, 2.0, 2.0), (0.0, 0.0, 2.0))
"""Of the wrist and of each finger's keypoints."""


class GeneratedHands(HandSamples):
    """`length` square pictures of noise with a dot for each keypoint of a hand, in the colour of its finger."""

    def __init__(
        self, *, length: int, side: int, sizes: Sequence[int] = (), seed: int = 0, training: bool = False
    ) -> None:
        self.paths = tuple(f"generated/{index}" for index in range(length))
        self.fingerprint = f"generated-hands-{length}-{side}-{seed}"
        self.training = training
        self._side, self._sizes, self._seed = side, tuple(sizes), seed
        dice = generator("hands", seed)
        turns = torch.cat((TURN * torch.randn(length, 1, 3, generator=dice), BEND * _bends(length, dice)), dim=1)
        rotations = from_axis_angle(turns)
        rotations[:, 0] = rotations[:, 0] @ torch.tensor(PALM)
        self._rotations = rotations
        with torch.no_grad():
            hand = HandLayer(generated_hand())(rotations, torch.randn(length, 10, generator=dice))
        place = SPREAD_M * torch.randn(length, 1, 3, generator=dice) + torch.tensor((0.0, 0.0, DISTANCE_M))
        place = place - hand.keypoints.mean(1, keepdim=True)
        self._keypoints, self._vertices = (hand.keypoints + place).numpy(), (hand.vertices + place).numpy()

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """The hand is the sample's; a training set has new noise in every epoch."""
        side = side_of_step(self._sizes, self._seed, step) or self._side
        keypoints, camera = self._keypoints[index], _camera(side)
        dice = generator("noise", self._seed, epoch if self.training else 0, index)
        image = 0.4 * torch.randn(3, side, side, generator=dice) + _dots(keypoints, camera, side)
        target = target_of(View(matrix=np.eye(3), size=(side, side)), camera, keypoints, self._vertices[index])
        target["rotations"] = self._rotations[index]
        return Sample(image, target, index, None if self.training else Frame.whole(side, side))


def open_generated(data: HandData, train: DrawnAs, validation: DrawnAs) -> tuple[GeneratedHands, GeneratedHands]:
    """As `both_sets`."""
    return both_sets(GeneratedHands, data, train.seed, side=data.image_size)


def example(data: HandData, num_images: int) -> Batch:
    """Pictures of the largest size of a recipe's `data`."""
    side = max([data.image_size, *data.train_sizes])
    made = GeneratedHands(length=num_images, side=side, training=True)
    return stacked([made.draw(0, number) for number in range(num_images)])


def _bends(length: int, dice: torch.Generator) -> Tensor:
    """Axis-angle of the 15 joints after the wrist: fingers bend towards the palm, about +z."""
    bends = 0.2 * torch.randn(length, 15, 3, generator=dice)
    bends[..., 2] += 2 * torch.rand(length, 1, generator=dice)
    return bends


def _camera(side: int) -> np.ndarray:
    """0 in the centre of the first pixel, as FreiHAND's."""
    middle = (side - 1) / 2
    return np.array([[FOCAL * side, 0.0, middle], [0.0, FOCAL * side, middle], [0.0, 0.0, 1.0]])


def _dots(keypoints: np.ndarray, camera: np.ndarray, side: int) -> Tensor:
    """3 side side; a dot has a radius of about a fortieth of the side."""
    points = torch.from_numpy(projected(from_corner(camera), keypoints.astype(np.float64))).float()
    lines = torch.arange(side) + 0.5
    across, down = (torch.exp(-(((lines - each[:, None]) * 40 / side) ** 2)) for each in points.T)
    colours = torch.tensor([COLOURS[0], *(colour for colour in COLOURS[1:] for _ in range(4))])
    return torch.einsum("kc,kh,kw->chw", colours, down, across)
