"""From a decoded image to a model's input, as `Preprocessing` defines it; needs Pillow and NumPy only."""

import math

import numpy as np
from PIL import Image

from hybridvit.card import Preprocessing
from hybridvit.errors import UsageError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Resize, cut the centre out and normalise: RGB image of any size -> float32 array, c h w.

    Equal to the last bit to timm's evaluation transform of the same settings. With one value each in `mean` and `std`
    the image is made grey first (c = 1). Raises `UsageError` if they do not have one or three values each.
    """
    return normalise(cut(image, preprocessing), preprocessing)


def cut(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The part of the image that the model sees, in its size: what a report shows beside the prediction."""
    height, width = preprocessing.image_size
    resized = image.resize(_resized_size(image.size, preprocessing), RESAMPLING[preprocessing.interpolation])
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return resized.crop((left, top, left + width, top + height))  # beyond the image, if crop_fraction > 1: black


def normalise(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """(values / 255 - mean) / std of an RGB image: h w c bytes -> float32 array, c h w."""
    pixels = np.asarray(image.convert("L" if num_channels(preprocessing) == 1 else "RGB"), np.float32) / 255
    pixels = pixels.reshape(image.height, image.width, -1)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))  # c h w


def num_channels(preprocessing: Preprocessing) -> int:
    """1 (grey) or 3 (RGB), from the number of means; raises `UsageError` for any other number."""
    counts = len(preprocessing.mean), len(preprocessing.std)
    if counts not in ((1, 1), (3, 3)):
        raise UsageError(
            f"Preprocessing has {counts[0]} means and {counts[1]} standard deviations, but image files have 1 channel "
            "(grey) or 3 (RGB). Give one or three of each; prepare other inputs as tensors yourself."
        )
    return counts[0]


def _resized_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height before the crop; the roundings are timm's, so that published accuracies come out."""
    width, height = size
    crop_height, crop_width = (math.floor(side / preprocessing.crop_fraction) for side in preprocessing.image_size)
    if preprocessing.crop_mode == "squash":
        return crop_width, crop_height
    if crop_height == crop_width:
        short = min(width, height)
        return int(crop_width * width / short), int(crop_height * height / short)
    shrink = min(height / crop_height, width / crop_width)
    return round(width / shrink), round(height / shrink)
