"""Two marks far apart in a noisy image: of the same kind, or not? A task that no part of an image answers."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hybridvit.batch import Sample
from hybridvit.data.encoded import ImageOptions
from hybridvit.data.samples import LabelledImages, Opened
from hybridvit.data.seeding import generator
from hybridvit.errors import UsageError

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig

NUM_TRAINING, NUM_VALIDATION = 3200, 1000  # images an epoch, new in each; and to validate on
KINDS = (1.0, -1.0)  # a bright disc and a dark one
MARK_PX = 17  # diameter of a disc
CONTRAST, NOISE = 2.0, 0.5  # of a disc against the ground; standard deviation of every pixel


class TwoMarks(LabelledImages):
    """`length` square images of two discs each, both bright, both dark, or one of each; the two classes take turns.

    The boxes of the discs are at least half the image's side apart, across or down. The first disc's kind and both
    places are drawn without regard to the class, so that one disc alone tells nothing. The images of a training set are
    new in every epoch, and none of them is in a validation set.

    Raises `UsageError` for fewer images than classes, or a side that leaves no room.
    """

    class_names = ("same", "different")

    def __init__(self, *, length: int, image_size: int = 96, seed: int = 0, training: bool = False) -> None:
        if length < len(self.class_names):
            raise UsageError(f"{length} images cannot show two classes. Ask for at least 2.")
        if image_size < 4 * MARK_PX:
            raise UsageError(
                f"An image of {image_size} px has no room for two discs of {MARK_PX} px half its side apart. "
                f"Use {4 * MARK_PX} px or more."
            )
        self.paths = tuple(f"two_marks/{index}" for index in range(length))
        self.labels = tuple(index % 2 for index in range(length))
        self.fingerprint = f"two-marks-{length}-{image_size}-{seed}-{training}"
        self.training = training
        self.image_size = image_size
        self._seed = seed

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """Discs and noise are the sample's; in a training set the epoch's too."""
        noise = torch.randn(3, self.image_size, self.image_size, generator=self._generator("noise", epoch, index))
        image = NOISE * noise
        for kind, (top, left) in zip(self.kinds(epoch, index), self.places(epoch, index), strict=True):
            image[:, top : top + MARK_PX, left : left + MARK_PX] += CONTRAST * KINDS[kind] * disc()
        return Sample(image, self.labels[index], index)

    def kinds(self, epoch: int, index: int) -> tuple[int, int]:
        """Which discs the image has, as numbers of `KINDS`."""
        first = int(torch.randint(len(KINDS), (), generator=self._generator("kind", epoch, index)))
        return first, (first + self.labels[index]) % len(KINDS)

    def places(self, epoch: int, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Top left corners (row, column) of the boxes of the two discs."""
        dice = self._generator("places", epoch, index)
        while True:
            one, other = torch.randint(self.image_size - MARK_PX + 1, (2, 2), generator=dice).tolist()
            apart = max(abs(one[0] - other[0]), abs(one[1] - other[1])) - MARK_PX  # pixels between the boxes
            if apart >= self.image_size // 2:
                return (one[0], one[1]), (other[0], other[1])

    def _generator(self, part: str, epoch: int, index: int) -> torch.Generator:
        split, epoch = ("training", epoch) if self.training else ("validation", 0)
        return generator("two marks", part, split, self._seed, epoch, index)


def open_two_marks(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """Images of the recipe's size and seed to train on, and always the same ones to validate on."""
    images = TwoMarks(length=NUM_TRAINING, image_size=data.image_size, seed=train["seed"], training=True)
    return images, TwoMarks(length=NUM_VALIDATION, image_size=data.image_size)


def disc() -> Float[Tensor, "side side"]:
    """1 inside, 0 outside."""
    place = torch.arange(MARK_PX) - MARK_PX // 2
    return (place.square() + place[:, None].square() <= (MARK_PX // 2) ** 2).float()
