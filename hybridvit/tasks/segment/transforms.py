"""A picture and the labels of its pixels, as training and evaluation show them."""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from hybridvit.batch import Frame
from hybridvit.card import Preprocessing
from hybridvit.data.preprocess import RESAMPLING, channels, cut, frame_of, num_channels
from hybridvit.tasks.segment.config import SegmentAugment
from hybridvit.tasks.segment.masks import IGNORE

_TRIES = 10  # of a part that no class fills


class Shown(NamedTuple):
    """What becomes of a picture and its mask."""

    pixels: Tensor  # c h w, uint8; not normalised yet
    labels: Tensor  # h w, uint8; in evaluation of the mask's own size
    frame: Frame | None = None


class EvalPair:
    """The whole picture as a model's card says, and the labels as they are."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        num_channels(preprocessing)
        self.preprocessing = preprocessing

    def __call__(self, picture: Image.Image, labels: np.ndarray, side: int | None) -> Shown:
        assert side is None, "what is evaluated is prepared as the card says"
        pixels = channels(cut(picture, self.preprocessing), self.preprocessing)
        return Shown(
            torch.from_numpy(pixels).permute(2, 0, 1),  # h w c -> c h w
            torch.from_numpy(labels),
            frame_of(picture.size, self.preprocessing),
        )


class TrainPair:
    """A part of the picture in a random scale, of a square of one side; padded where the picture is smaller.

    The factor is uniform on the size that fits `fit_px`, the aspect stays (the published runs on ADE20K: 0.5 to 2 times
    what fits 2048 x 512). A part of which one class has more than `largest_share` is drawn again, ten times at most;
    ignored pixels do not count. Brightness, contrast, saturation and hue change as `RandomPhotometricDistort` has it;
    the published runs add to the brightness, where this multiplies. Draws from the global generators.
    """

    def __init__(self, augment: SegmentAugment, preprocessing: Preprocessing) -> None:
        num_channels(preprocessing)
        self.augment, self.preprocessing = augment, preprocessing
        self._distort = v2.RandomPhotometricDistort(
            contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.05, 0.05), p=augment.distortion
        )

    def __call__(self, picture: Image.Image, labels: np.ndarray, side: int | None) -> Shown:
        side = side or self.preprocessing.image_size[0]
        width, height = self._resized(picture.size, side)
        mask = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
        left, top = self._place(mask, side)
        right, bottom = min(left + side, width), min(top + side, height)
        across, down = picture.width / width, picture.height / height
        part = picture.resize(
            (right - left, bottom - top),
            RESAMPLING[self.preprocessing.interpolation],
            box=(left * across, top * down, right * across, bottom * down),
        )
        shown, kept = self._padded(part, mask.crop((left, top, right, bottom)), side)
        if random.random() < self.augment.hflip:
            shown, kept = (np.ascontiguousarray(each[:, ::-1]) for each in (shown, kept))
        pixels = torch.from_numpy(shown).permute(2, 0, 1)  # h w c -> c h w
        if self.augment.distortion and len(pixels) == 3:
            pixels = self._distort(pixels)
        return Shown(pixels, torch.from_numpy(kept))

    def _resized(self, size: tuple[int, int], side: int) -> tuple[int, int]:
        """Width and height of the whole picture in the scale that is drawn."""
        factor = random.uniform(*self.augment.scale) * side / self.preprocessing.image_size[0]
        shorter, longer = self.preprocessing.fit_px or self.preprocessing.image_size
        factor *= min(shorter / min(size), longer / max(size))
        width, height = (max(1, round(each * factor)) for each in size)
        return width, height

    def _place(self, mask: Image.Image, side: int) -> tuple[int, int]:
        """Left and top of the part."""
        for _ in range(_TRIES):
            left, top = (random.randint(0, max(0, whole - side)) for whole in mask.size)
            part = np.asarray(mask.crop((left, top, min(left + side, mask.width), min(top + side, mask.height))))
            counts = np.bincount(part.ravel(), minlength=IGNORE + 1)[:IGNORE]
            if self.augment.largest_share == 1 or counts.max() <= self.augment.largest_share * counts.sum():
                break
        return left, top

    def _padded(self, part: Image.Image, mask: Image.Image, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels on a whole square: the mean colour and IGNORE to the right and below."""
        pixels, labels = channels(part, self.preprocessing), np.array(mask)
        if labels.shape == (side, side):
            return pixels, labels
        mean = np.array([math.floor(255 * each + 0.5) for each in self.preprocessing.mean], np.uint8)
        canvas = np.empty((side, side, len(mean)), np.uint8)
        canvas[:] = mean
        canvas[: part.height, : part.width] = pixels
        whole = np.full((side, side), IGNORE, np.uint8)
        whole[: part.height, : part.width] = labels
        return canvas, whole
