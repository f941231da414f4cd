"""Images made up from a seed, for dry runs and tests: no files, and something to learn all the same."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from hybridvit.batch import Sample
from hybridvit.data.encoded import ImageOptions
from hybridvit.data.samples import LabelledImages, Opened, Samples
from hybridvit.data.seeding import generator, side_of_step
from hybridvit.errors import UsageError

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig

Generated = TypeVar("Generated", bound=Samples)


class GeneratedImages(LabelledImages):
    """`length` images of noise on a colour that belongs to the class; classes take turns.

    `image_size` is (height, width) in pixels; with `sizes` each step has one of these sides instead. Pixels have about
    zero mean and unit variance, as normalised photos do. Raises `UsageError` for fewer images than classes.
    """

    def __init__(
        self,
        *,
        length: int = 64,
        image_size: tuple[int, int] = (32, 32),
        num_classes: int = 10,
        sizes: Sequence[int] = (),
        seed: int = 0,
        training: bool = False,
    ) -> None:
        if not 1 <= num_classes <= length:
            raise UsageError(f"{length} generated images cannot show {num_classes} classes. Ask for at least as many.")
        self.paths = tuple(f"generated/{index}" for index in range(length))
        self.labels = tuple(index % num_classes for index in range(length))
        self.class_names = tuple(str(label) for label in range(num_classes))
        self.fingerprint = f"generated-{length}-{image_size}-{num_classes}-3-{seed}"
        self.training = training
        self._size, self._sizes, self._seed = image_size, tuple(sizes), seed

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """The colour is the class's, the noise the sample's; a training set has new noise in every epoch."""
        label = self.labels[index]
        side = side_of_step(self._sizes, self._seed, step)
        size = self._size if side is None else (side, side)
        colour = torch.randn(3, 1, 1, generator=generator("colour", label))
        noise_epoch = epoch if self.training else 0
        noise = torch.randn(3, *size, generator=generator("noise", self._seed, noise_epoch, index))
        return Sample(0.8 * colour + 0.6 * noise, label, index)


def open_generated(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """As `both_sets`."""
    return both_sets(GeneratedImages, data, train["seed"], image_size=(data.image_size, data.image_size))


def both_sets(
    make: Callable[..., Generated], data: "DataConfig", seed: int, **options: Any
) -> tuple[Generated, Generated]:
    """Two epochs' worth of steps to train on, and half as many images to validate on; `make` is given `options` too."""
    images = make(
        length=max(10, 2 * data.total_batch),
        sizes=data.train_sizes,
        seed=seed if data.train_sizes else 0,
        training=True,
        **options,
    )
    return images, make(length=max(10, data.total_batch), seed=1, **options)
