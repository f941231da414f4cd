"""From an image, as a file or decoded, to a training or evaluation tensor."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hybridvit.batch import Patch
from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.crop import Crop, decode_crop, resized_crop
from hybridvit.data.decode import MAX_PIXELS, ImageSource
from hybridvit.data.pixels import Normalisation, Pixels
from hybridvit.data.preprocess import RESAMPLING, channels, cut, num_channels, opened, preprocess


class Transform(ABC):
    """An image of any size -> float32 tensor, c h w. Can be sent to worker processes."""

    normalisation: Normalisation

    @abstractmethod
    def __call__(self, image: Image.Image) -> Tensor:
        """The tensor of a decoded, upright RGB image."""

    @abstractmethod
    def pixels_of_file(self, source: ImageSource, *, max_pixels: int = MAX_PIXELS, side: int | None = None) -> Pixels:
        """What becomes of a file, or of the bytes of one, before it is normalised. Raises `ImageDecodeError`.

        `side` is that of the square tensor, where the transform has no size of its own for all.
        """

    def of_file(self, source: ImageSource, *, max_pixels: int = MAX_PIXELS, side: int | None = None) -> Tensor:
        """The tensor of a file, or of the bytes of one; see `pixels_of_file`."""
        return self.normalisation.of(self.pixels_of_file(source, max_pixels=max_pixels, side=side))


class EvalTransform(Transform):
    """That of evaluation, prediction and export checks; `preprocess` as a tensor. Raises `UsageError`."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        num_channels(preprocessing)
        self.preprocessing = preprocessing
        self.normalisation = Normalisation(mean=preprocessing.mean, std=preprocessing.std)

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(preprocess(image, self.preprocessing))

    def pixels_of_file(self, source: ImageSource, *, max_pixels: int = MAX_PIXELS, side: int | None = None) -> Pixels:
        assert side is None, "what is evaluated is prepared as the card says"
        picture = opened(source, self.preprocessing, max_pixels=max_pixels).image
        pixels = channels(cut(picture, self.preprocessing), self.preprocessing)
        return Pixels(torch.from_numpy(pixels).permute(2, 0, 1))  # h w c -> c h w


class TrainTransform(Transform):
    """Random crop, flips, RandAugment or colour jitter, normalisation, random erasing, in timm's implementation.

    `reduced_decode` lets a JPEG be decoded at a fraction of its size where the random crop is larger than the tensor by
    that much (see `decode_crop`); the random numbers are the same either way.

    Draws from the global generators of Python, NumPy and torch: call it inside `seeding.seeded(seed, epoch, sample)`,
    as `ImageFolder` does, and what it does depends on nothing else. Raises `UsageError`.
    """

    def __init__(self, augment: AugmentConfig, preprocessing: Preprocessing, *, reduced_decode: bool = True) -> None:
        from timm.data import create_transform  # half a second: only training pays for it

        self.preprocessing = preprocessing
        self.reduced_decode = reduced_decode
        self.grey = num_channels(preprocessing) == 1
        self._resampling = RESAMPLING[preprocessing.interpolation]
        self.normalisation = Normalisation(mean=preprocessing.mean, std=preprocessing.std)
        crop, self._distort, finish = create_transform(
            preprocessing.image_size,
            is_training=True,
            separate=True,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            vflip=augment.vflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.rand_augment or None,
            interpolation=preprocessing.interpolation,
            # RandAugment fills with the mean colour and needs it for three channels.
            mean=preprocessing.mean * (3 if self.grey else 1),
            std=preprocessing.std * (3 if self.grey else 1),
            re_prob=augment.random_erasing,
            re_mode=augment.erasing_fill,
        )
        self._random_crop, *self._flips = crop.transforms
        _, _, *self._erasing = finish.transforms
        for step in self._distort.transforms:
            for operation in getattr(step, "ops", ()):  # of RandAugment; the other steps have none
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = posterize

    def __call__(self, image: Image.Image) -> Tensor:
        crop = self._choose(image.size)
        part = resized_crop(image, crop, self.preprocessing.image_size, self._resampling)
        return self.normalisation.of(self._finish(part))

    def pixels_of_file(self, source: ImageSource, *, max_pixels: int = MAX_PIXELS, side: int | None = None) -> Pixels:
        crop = decode_crop(
            source,
            self._choose,
            self.preprocessing.image_size if side is None else (side, side),
            self._resampling,
            max_pixels=max_pixels,
            exif_orientation=self.preprocessing.exif_orientation,
            levels=self.preprocessing.levels,
            reduced=self.reduced_decode,
        )
        return self._finish(crop)

    def _choose(self, size: tuple[int, int]) -> Crop:
        """timm's random part of an image of that width and height, which it wants to see, but need not hold pixels."""
        canvas, crop = torch.empty(size[1], size[0], device="meta"), self._random_crop
        top, left, height, width = crop.get_params(canvas, crop.scale, crop.ratio)
        return Crop(left, top, width, height)

    def _finish(self, image: Image.Image) -> Pixels:
        for flip in self._flips:
            image = flip(image)
        image = self._distort(image)
        if self.grey:
            image = image.convert("L").convert("RGB")
        channels = 1 if self.grey else 3
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # h w c -> c h w
        patch = self._erased(*values.shape)
        return Pixels(values[:channels], patch and patch._replace(values=patch.values[:channels]))

    def _erased(self, channels: int, height: int, width: int) -> Patch | None:
        """What timm's random erasing writes into an image of that size, which is no number yet and need not be seen."""
        canvas = _Canvas(channels, height, width)
        for erase in self._erasing:
            erase(canvas)
        return canvas.patch


class _Canvas:
    """Stands for an image (c h w) in front of timm's random erasing, and keeps the one patch that is written."""

    dtype = torch.float32

    def __init__(self, *shape: int) -> None:
        self._shape = shape
        self.patch: Patch | None = None

    def size(self) -> tuple[int, ...]:
        return self._shape

    def __setitem__(self, place: tuple[slice, slice, slice], values: Tensor) -> None:
        assert self.patch is None, "one patch an image"
        _, rows, columns = place
        whole = values.expand(self._shape[0], rows.stop - rows.start, columns.stop - columns.start)
        self.patch = Patch(rows.start, columns.start, whole)


def posterize(image: Image.Image, bits_to_keep: int, **fill: Any) -> Image.Image:
    """timm's operation, which the largest magnitude asks to keep no bit: black, until Pillow 13 made that an error."""
    from timm.data.auto_augment import posterize as timms

    return timms(image, bits_to_keep, **fill) if bits_to_keep > 0 else Image.new(image.mode, image.size)
