"""From a decoded image to a training or evaluation tensor."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.preprocess import num_channels, preprocess

Transform = Callable[[Image.Image], Tensor]
"""RGB image of any size -> float32 tensor, c h w."""


class EvalTransform:
    """See `eval_transform`; a class, so that it can be sent to worker processes."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        num_channels(preprocessing)
        self.preprocessing = preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(preprocess(image, self.preprocessing))


class TrainTransform:
    """See `train_transform`."""

    def __init__(self, augment: AugmentConfig, preprocessing: Preprocessing) -> None:
        from timm.data import create_transform  # half a second: only training pays for it

        self.grey = num_channels(preprocessing) == 1
        self._crop, self._distort, self._normalise = create_transform(
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
        for step in self._distort.transforms:
            for operation in getattr(step, "ops", ()):  # of RandAugment; the other steps have none
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = _posterize

    def __call__(self, image: Image.Image) -> Tensor:
        image = self._distort(self._crop(image))
        if self.grey:
            image = image.convert("L").convert("RGB")
        tensor: Tensor = self._normalise(image)
        return tensor[:1] if self.grey else tensor


def _posterize(image: Image.Image, bits_to_keep: int, **fill: Any) -> Image.Image:
    """timm's operation, which the largest magnitude asks to keep no bit: black, until Pillow 13 made that an error."""
    from timm.data.auto_augment import posterize

    return posterize(image, bits_to_keep, **fill) if bits_to_keep > 0 else Image.new(image.mode, image.size)


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """The transform of evaluation, prediction and export checks; `preprocess` as a tensor. Raises `UsageError`."""
    return EvalTransform(preprocessing)


def train_transform(augment: AugmentConfig, preprocessing: Preprocessing) -> Transform:
    """Random crop, flips, RandAugment or colour jitter, normalisation, random erasing, in timm's implementation.

    Draws from the global generators of Python, NumPy and torch: call it inside `seeding.seeded(seed, epoch, sample)`,
    as `ImageFolder` does, and what it does depends on nothing else. Raises `UsageError`.
    """
    return TrainTransform(augment, preprocessing)
