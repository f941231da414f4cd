"""From an image, as a file or decoded, to the input that `Preprocessing` defines; needs Pillow and NumPy only."""

import math

import numpy as np
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.card import MIN_SIDE_PX, Preprocessing
from hybridvit.data.decode import MAX_PIXELS, Decoded, ImageSource, decode
from hybridvit.errors import UsageError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_MOST_RESIZED_PIXELS = 20_000_000
"""Above this, only the part that is kept is resized: a sliver of 1x5000 pixels would grow to 400 million. Below, the
whole is resized and then cut, as timm does: the other way can differ by a rounding."""


def prepare(
    source: ImageSource, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> np.ndarray:
    """Decode a file, or the bytes of one, and `preprocess` it: what a model is given for it outside of training.

    `name` is what errors call bytes that come from somewhere.

    Raises `ImageDecodeError`, `UsageError`.
    """
    return preprocess(opened(source, preprocessing, max_pixels=max_pixels, name=name).image, preprocessing)


def opened(
    source: ImageSource, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> Decoded:
    """Decode as the settings say, whole; see `prepare`."""
    return decode(
        source,
        max_pixels=max_pixels,
        exif_orientation=preprocessing.exif_orientation,
        levels=preprocessing.levels,
        name=name,
    )


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Resize, cut the centre out and normalise: RGB image of any size -> float32 array, c h w.

    Equal to the last bit to timm's evaluation transform of the same settings. With one value each in `mean` and `std`
    the image is made grey first (c = 1). Raises `UsageError` if they do not have one or three values each.
    """
    return padded(normalise(cut(image, preprocessing), preprocessing), preprocessing)


def padded(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """A normalised picture (c h w) of mode "letterbox" with zeros to the right and below; others as they are."""
    if preprocessing.crop_mode != "letterbox":
        return image
    height, width = preprocessing.image_size
    return np.pad(image, ((0, 0), (0, height - image.shape[1]), (0, width - image.shape[2])))


def cut(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The part of the image that the model sees, in its size: what a report shows beside the prediction."""
    height, width = preprocessing.image_size
    resampling = RESAMPLING[preprocessing.interpolation]
    if shows_all(preprocessing):
        return image.resize(_whole_size(image.size, preprocessing), resampling)
    if preprocessing.crop_mode == "pad":
        return _on_black(image, (width, height), resampling)
    resized_width, resized_height, left, top = _placed(image.size, preprocessing)
    if resized_width * resized_height > _MOST_RESIZED_PIXELS:
        across, down = image.width / resized_width, image.height / resized_height
        part = (left * across, top * down, (left + width) * across, (top + height) * down)
        return image.resize((width, height), resampling, box=part)
    resized = image.resize((resized_width, resized_height), resampling)
    return resized.crop((left, top, left + width, top + height))  # beyond the image, if crop_fraction > 1: black


def frame_of(size: tuple[int, int], preprocessing: Preprocessing) -> Frame:
    """Where the input that `preprocess` makes lies in a picture of that width and height."""
    height, width = preprocessing.image_size
    if shows_all(preprocessing):
        width, height = _whole_size(size, preprocessing)
        return Frame(
            picture_size=(size[1], size[0]), crop=(0.0, 0.0, float(size[0]), float(size[1])), input_size=(height, width)
        )
    if preprocessing.crop_mode == "pad":
        canvas = _canvas_size(size, (width, height))
        left_of, above = ((whole - side) // 2 for whole, side in zip(canvas, size, strict=True))
        crop = (-float(left_of), -float(above), float(canvas[0]), float(canvas[1]))
        return Frame(picture_size=(size[1], size[0]), crop=crop, input_size=(height, width))
    resized_width, resized_height, left, top = _placed(size, preprocessing)
    across, down = size[0] / resized_width, size[1] / resized_height
    return Frame(
        picture_size=(size[1], size[0]),
        crop=(left * across, top * down, width * across, height * down),
        input_size=(height, width),
    )


def normalise(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """(values / 255 - mean) / std of an RGB image: h w c bytes -> float32 array, c h w."""
    planes = channels(image, preprocessing).transpose(2, 0, 1).astype(np.float32, order="C")  # c h w: rows lie together
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    planes /= 255
    planes -= mean
    planes /= std
    return planes


def as_picture(image: np.ndarray, preprocessing: Preprocessing) -> Image.Image:
    """The RGB picture that `normalise` made an array (c h w) of."""
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    pixels = np.rint((image.transpose(1, 2, 0) * std + mean) * 255).clip(0, 255).astype(np.uint8)  # h w c
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")


def channels(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """The bytes of an RGB image, h w c, in as many channels as there are means."""
    pixels = np.array(image.convert("L" if num_channels(preprocessing) == 1 else "RGB"))
    return pixels.reshape(image.height, image.width, -1)


def num_channels(preprocessing: Preprocessing) -> int:
    """1 (grey) or 3 (RGB), from the number of means; raises `UsageError` for any other number."""
    counts = len(preprocessing.mean), len(preprocessing.std)
    if counts not in ((1, 1), (3, 3)):
        raise UsageError(
            f"Preprocessing has {counts[0]} means and {counts[1]} standard deviations, but image files have 1 channel "
            "(grey) or 3 (RGB). Give one or three of each; prepare other inputs as tensors yourself."
        )
    return counts[0]


def shows_all(preprocessing: Preprocessing) -> bool:
    """Whether the input shows the whole picture, its aspect kept."""
    return preprocessing.crop_mode in ("fit", "letterbox", "original")


def _whole_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height of the input that shows all of a picture of that width and height."""
    width, height = size
    if preprocessing.crop_mode == "original":
        return size
    if preprocessing.crop_mode == "fit":
        return fitted_size(size, preprocessing.fit_px or preprocessing.image_size)
    scale = min(preprocessing.image_size[0] / height, preprocessing.image_size[1] / width)
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def fitted_size(size: tuple[int, int], fit_px: tuple[float, float]) -> tuple[int, int]:
    """Width and height as large as `fit_px`, the most of the shorter and of the longer side, allows; none below 32."""
    shorter, longer = fit_px
    scale = min(shorter / min(size), longer / max(size))
    width, height = (max(MIN_SIDE_PX, int(side * scale + 0.5)) for side in size)
    return width, height


def _on_black(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    """The picture in the middle of a black canvas of the aspect of `size` (width, height), resized to that."""
    canvas = _canvas_size(image.size, size)
    if canvas[0] * canvas[1] > _MOST_RESIZED_PIXELS:  # a sliver: what black it would need is put around it afterwards
        scale = size[0] / canvas[0], size[1] / canvas[1]
        image = image.resize(
            (max(1, round(image.width * scale[0])), max(1, round(image.height * scale[1]))), resampling
        )
        canvas = size
    padded = Image.new(image.mode, canvas)
    padded.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
    return padded.resize(size, resampling)


def _canvas_size(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the smallest canvas around a picture of `size` that has the aspect of `wanted`."""
    width, height = size
    if width * wanted[1] > height * wanted[0]:
        return width, round(width * wanted[1] / wanted[0])
    return round(height * wanted[0] / wanted[1]), height


def _placed(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Width and height before the crop, and the left upper corner of the crop in that."""
    height, width = preprocessing.image_size
    resized_width, resized_height = _resized_size(size, preprocessing)
    return resized_width, resized_height, round((resized_width - width) / 2), round((resized_height - height) / 2)


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
