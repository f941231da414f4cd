"""Images made up from a seed, for dry runs and tests: no files, and something to learn all the same."""

from collections.abc import Sequence

import torch

from hybridvit.batch import Sample
from hybridvit.data.encoded import ImageOptions
from hybridvit.data.generated import both_sets
from hybridvit.data.seeding import generator, side_of_step
from hybridvit.tasks.multilabel.config import MultilabelData
from hybridvit.tasks.multilabel.data import LabelSets


class GeneratedLabels(LabelSets):
    """`length` square images of noise, with bright channels and dark ones: the labels are the bright ones."""

    class_names = ("red", "green", "blue")

    def __init__(
        self, *, length: int, image_size: int, sizes: Sequence[int] = (), seed: int = 0, training: bool = False
    ) -> None:
        self.paths = tuple(f"generated/{index}" for index in range(length))
        self.labels = tuple(tuple(label for label in range(3) if index >> label & 1) for index in range(length))
        self.fingerprint = f"generated-labels-{length}-{image_size}-{seed}"
        self.training = training
        self._size, self._sizes, self._seed = image_size, tuple(sizes), seed

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """The noise is the sample's; a training set has new noise in every epoch."""
        side = side_of_step(self._sizes, self._seed, step) or self._size
        levels = torch.full((3, 1, 1), -0.8)
        levels[list(self.labels[index])] = 0.8
        parts = ("noise", self._seed, epoch if self.training else 0, index)
        noise = torch.randn(3, side, side, generator=generator(*parts))
        return Sample(levels + 0.6 * noise, torch.tensor(self.labels[index], dtype=torch.long), index)


def open_generated(
    data: MultilabelData, train: ImageOptions, validation: ImageOptions
) -> tuple[GeneratedLabels, GeneratedLabels]:
    """As `both_sets`."""
    return both_sets(GeneratedLabels, data, train["seed"], image_size=data.image_size)
