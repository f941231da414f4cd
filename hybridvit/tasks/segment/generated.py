"""Pictures made up from a seed, for dry runs and tests: no files, and something to learn all the same."""

from collections.abc import Sequence

import torch

from hybridvit.batch import Sample
from hybridvit.data.generated import both_sets
from hybridvit.data.seeding import generator, side_of_step
from hybridvit.tasks.segment.config import SegmentData
from hybridvit.tasks.segment.data import MaskedOptions, MaskedSamples
from hybridvit.tasks.segment.masks import IGNORE


class GeneratedMasks(MaskedSamples):
    """`length` square pictures of noise: a bright half, dark corners, and a strip that belongs to no class."""

    class_names = ("ground", "bright", "dark")

    def __init__(
        self, *, length: int, image_size: int, sizes: Sequence[int] = (), seed: int = 0, training: bool = False
    ) -> None:
        self.paths = tuple(f"generated/{index}" for index in range(length))
        self.fingerprint = f"generated-masks-{length}-{image_size}-{seed}"
        self.training = training
        self._size, self._sizes, self._seed = image_size, tuple(sizes), seed

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """Where the classes are is the sample's, as is the noise; a training set has new noise in every epoch."""
        side = side_of_step(self._sizes, self._seed, step) or self._size
        labels = torch.zeros(side, side, dtype=torch.uint8)
        dice = generator("places", self._seed, index)
        middle, corner = (int(torch.randint(side // 4, side // 2, (), generator=dice)) for _ in range(2))
        labels[:, :middle] = 1
        labels[-corner:, -corner:] = 2
        levels = torch.tensor([0.0, 1.0, -1.0])[labels.long()]
        parts = ("noise", self._seed, epoch if self.training else 0, index)
        noise = torch.randn(3, side, side, generator=generator(*parts))
        labels[:2] = IGNORE
        return Sample(levels + 0.4 * noise, labels, index)


def open_generated(
    data: SegmentData, train: MaskedOptions, validation: MaskedOptions
) -> tuple[GeneratedMasks, GeneratedMasks]:
    """As `both_sets`."""
    return both_sets(GeneratedMasks, data, train["seed"], image_size=data.image_size)
