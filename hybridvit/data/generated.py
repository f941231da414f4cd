"""Images made up from a seed, for dry runs and tests: no files, and something to learn all the same."""

import torch

from hybridvit.data.images import Images, Sample
from hybridvit.data.seeding import derive_seed
from hybridvit.errors import UsageError


class GeneratedImages(Images):
    """`length` images of noise on a colour that belongs to the class; classes take turns.

    `image_size` is (height, width) in pixels. Pixels have about zero mean and unit variance, as normalised photos do.
    Raises `UsageError` for fewer images than classes.
    """

    def __init__(
        self,
        *,
        length: int = 64,
        image_size: tuple[int, int] = (32, 32),
        num_classes: int = 10,
        channels: int = 3,
        seed: int = 0,
        training: bool = False,
    ) -> None:
        if not 1 <= num_classes <= length:
            raise UsageError(f"{length} generated images cannot show {num_classes} classes. Ask for at least as many.")
        self.paths = tuple(f"generated/{index}" for index in range(length))
        self.labels = tuple(index % num_classes for index in range(length))
        self.class_names = tuple(str(label) for label in range(num_classes))
        self.fingerprint = f"generated-{length}-{image_size}-{num_classes}-{channels}-{seed}"
        self.training = training
        self._shape = (channels, *image_size)
        self._seed = seed

    def draw(self, epoch: int, index: int) -> Sample:
        """The colour is the class's, the noise the sample's; a training set has new noise in every epoch."""
        label = self.labels[index]
        colour = torch.randn(self._shape[0], 1, 1, generator=_generator("colour", label))
        noise_epoch = epoch if self.training else 0
        noise = torch.randn(self._shape, generator=_generator("noise", self._seed, noise_epoch, index))
        return Sample(0.8 * colour + 0.6 * noise, label, index)


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*parts))
