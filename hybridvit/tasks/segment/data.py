"""Pictures with their masks."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Required, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.data.decode import UPRIGHT, ImageSource, decode, turned
from hybridvit.data.encoded import DrawOptions, EncodedSamples
from hybridvit.data.listing import Labels, Listing
from hybridvit.data.loader import stacked
from hybridvit.data.pixels import Normalisation, Pixels
from hybridvit.data.samples import Samples
from hybridvit.data.seeding import side_of_step
from hybridvit.errors import DatasetError, SourceFault, some
from hybridvit.starting import preparation_of
from hybridvit.task import Splits
from hybridvit.tasks.segment.classes import Map
from hybridvit.tasks.segment.config import SOURCES, SegmentRecipe
from hybridvit.tasks.segment.masks import IGNORE, read_values
from hybridvit.tasks.segment.transforms import EvalPair, TrainPair

Show = TrainPair | EvalPair


class MaskedSamples(Samples):
    """Pictures of which each pixel has a class, or IGNORE."""

    class_facts: Mapping[str, Any] = MappingProxyType({})
    """For the card: how masks are read, and the colours of the classes."""


class MaskedOptions(DrawOptions, total=False):
    """How pictures with masks are drawn, whatever the source."""

    show: Required[Show]
    sizes: Sequence[int]  # sides in pixels, of which each step takes one


class EncodedMasks(EncodedSamples, MaskedSamples):
    """Pictures and masks as files or bytes; see `EncodedSamples` for what becomes of them.

    In evaluation labels have the size of the upright picture, whatever the model is shown.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        fingerprint: str,
        classes: Map,
        show: Show,
        sizes: Sequence[int] = (),
        **options: Unpack[DrawOptions],
    ) -> None:
        super().__init__(paths=paths, fingerprint=fingerprint, **options)
        self.class_names, self._reading = classes.names, classes.reading
        self.class_facts = {**classes.reading.to_facts(), "palette": classes.palette}
        self.sizes_differ = not self.training
        self._show, self._sizes = show, tuple(sizes)
        preprocessing = show.preprocessing
        self.normalisation = Normalisation(mean=preprocessing.mean, std=preprocessing.std)

    @abstractmethod
    def mask(self, index: int) -> tuple[ImageSource, str]:
        """The file of a mask, or its bytes, and its name."""

    def prepared(self, source: ImageSource, index: int, step: int) -> tuple[Pixels, Tensor, Frame | None]:
        preprocessing = self._show.preprocessing
        picture, facts = decode(
            source,
            max_pixels=self._max_pixels,
            exif_orientation=preprocessing.exif_orientation,
            levels=preprocessing.levels,
        )
        labels = self._labels(index, picture.size, facts.orientation)
        pixels, kept, frame = self._show(picture, labels, side_of_step(self._sizes, self._seed, step))
        return Pixels(pixels), kept, frame

    def _labels(self, index: int, size: tuple[int, int], orientation: int) -> np.ndarray:
        """The label of each pixel of an upright picture of that width and height. Raises SourceFault for a bad mask."""
        mask, name = self.mask(index)
        values = read_values(mask, self._reading, name=name).values
        labels = self._reading.labels(values)
        if (wrong := labels < 0).any():
            found = np.unique(values[wrong]).tolist()
            raise SourceFault(
                f"{name}: {wrong.sum():,} pixels have values that are no class ({some([str(each) for each in found])})."
                " Run `hybridvit check-data` on the folder, which names all such masks."
            )
        labels = labels.astype(np.uint8)
        if labels.shape[::-1] == size:
            return labels
        if orientation in UPRIGHT and turned((labels.shape[1], labels.shape[0]), orientation) == size:
            return np.array(Image.fromarray(labels).transpose(UPRIGHT[orientation]))
        raise SourceFault(
            f"{name}: the mask is {labels.shape[1]}x{labels.shape[0]}, but its picture {self.paths[index]} is "
            f"{size[0]}x{size[1]}. Save the mask in the size of the picture."
        )


class MaskedFiles(EncodedMasks):
    """Pictures and masks in files."""

    def __init__(
        self, listing: Listing[Labels], masks: Sequence[str], classes: Map, **options: Unpack[MaskedOptions]
    ) -> None:
        super().__init__(paths=listing.paths, fingerprint=listing.fingerprint, classes=classes, **options)
        self.masks = masks

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]

    def mask(self, index: int) -> tuple[str, str]:
        return self.masks[index], self.masks[index]


def collated(samples: Sequence[Sample]) -> Batch:
    """Pictures of one size; labels, where sizes differ, are padded with IGNORE to the right and below."""
    batch = stacked([sample._replace(target=0) for sample in samples])
    height, width = (max(sample.target.shape[axis] for sample in samples) for axis in (0, 1))
    targets = torch.full((len(samples), height, width), IGNORE, dtype=torch.long)
    for place, sample in zip(targets, samples, strict=True):
        place[: sample.target.shape[0], : sample.target.shape[1]] = sample.target
    return batch._replace(targets=targets)


def open_splits(recipe: SegmentRecipe) -> Splits:
    """The recipe's pictures. The classes are the training set's. Raises DatasetError where they are not fit to use."""
    data = recipe.data
    preprocessing = preparation_of(recipe)
    if data.fit_px:
        preprocessing = dataclasses.replace(preprocessing, fit_px=(data.fit_px[0], data.fit_px[1]))
    training: MaskedOptions = {
        "show": TrainPair(recipe.augment, preprocessing),
        "sizes": data.train_sizes,
        "training": True,
        "on_bad_image": data.on_bad_image,
        "seed": recipe.seed,
    }
    validation: MaskedOptions = {"show": EvalPair(preprocessing), "on_bad_image": data.on_bad_image}
    train, held = SOURCES[data.source].load()(data, training, validation)
    for images, key in ((train, "data.train"), (held, "data.val")):
        if not len(images):
            raise DatasetError(f"The split that {key} names has no pictures. Name another, or add pictures.")
    if len(train.class_names) < 2:
        raise DatasetError(
            f"The masks have {len(train.class_names)} class ({some(train.class_names, quoted=True)}): every answer "
            "would be right. Add another, or name all in classes.txt."
        )
    return Splits(train=train, validation=held, preprocessing=preprocessing)
