"""A part of an image, decoded no finer than it will be looked at; needs Pillow only."""

import math
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from hybridvit.data.decode import Facts, ImageSource, Levels, decode

_FACTORS = (8, 4, 2)
_MIRRORED = {2: (True, False), 3: (True, True), 4: (False, True), 6: (True, False), 7: (True, True), 8: (False, True)}
"""EXIF orientation -> whether the sensor's right or lower edge became the left edge and the upper edge."""


class Crop(NamedTuple):
    """A part of an image, in pixels of the whole, upright one."""

    left: int
    top: int
    width: int
    height: int


def resized_crop(
    image: Image.Image, crop: Crop, size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """That part alone (nothing beyond it is looked at) in `size`, which is (height, width)."""
    part = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    return part.resize((size[1], size[0]), resampling)


def decode_crop(
    source: ImageSource,
    choose: Callable[[tuple[int, int]], Crop],
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
    *,
    max_pixels: int,
    exif_orientation: bool = True,
    levels: Levels | None = None,
    reduced: bool = True,
) -> Image.Image:
    """`resized_crop` of `decode_image(source)` at `choose((width, height))`, which is asked once.

    If `reduced`, a JPEG is decoded at 1/2, 1/4 or 1/8 where the crop then still has at least `size` (height, width)
    pixels: the same part of the picture, of almost the same pixels, in less time. All else, and every smaller crop, is
    equal to the last bit. Raises as `decode_image`.
    """
    crop: Crop | None = None

    def reduction(whole: tuple[int, int]) -> int:
        nonlocal crop
        crop = choose(whole)
        return largest_reduction(crop, size)

    asked = reduction if reduced else None
    image, facts = decode(
        source, max_pixels=max_pixels, exif_orientation=exif_orientation, levels=levels, reduction=asked
    )
    crop = crop or choose(image.size)
    if facts.factor == 1:
        return resized_crop(image, crop, size, resampling)
    left, top, right, bottom = _reduced(crop, image.size, facts)
    outer = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
    inner = (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])
    return image.crop(outer).resize((size[1], size[0]), resampling, box=inner)


def largest_reduction(crop: Crop, size: tuple[int, int]) -> int:
    """8, 4, 2 or 1: the most by which both sides of the crop can be divided without falling below (height, width)."""
    height, width = size
    return next((by for by in _FACTORS if crop.width >= by * width and crop.height >= by * height), 1)


def _reduced(crop: Crop, size: tuple[int, int], facts: Facts) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the crop in the reduced image, to a fraction of a pixel.

    A side that the factor does not divide ends in a pixel that is partly beyond the picture, at the sensor's right and
    lower edge; where orientation made that the left or upper edge, all pixels are shifted by what lies beyond.
    """
    by = facts.factor
    from_right, from_bottom = _MIRRORED.get(facts.orientation, (False, False))
    left = (crop.left + (by * size[0] - facts.size[0] if from_right else 0)) / by
    top = (crop.top + (by * size[1] - facts.size[1] if from_bottom else 0)) / by
    return left, top, left + crop.width / by, top + crop.height / by
