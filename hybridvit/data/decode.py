"""The one way from an image file to pixels, shared by training, evaluation, prediction and export checks."""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from hybridvit.data.file_kind import (
    FORMATS,
    HEAD_BYTES,
    bytes_missing,
    describe,
    image_format,
    is_readable,
    readable,
    reader_of,
)
from hybridvit.errors import ImageDecodeError, first_line

ImageSource = str | os.PathLike[str] | bytes
"""A file, or the bytes of one."""
MAX_PIXELS = 89_478_485
"""The size above which an image is refused: 256 MiB of RGB, Pillow's own limit for a warning."""

# Everything Pillow was seen or is documented to raise on damaged files; Warning: where warnings are errors.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)
# Pillow 13 has no classes of errors for a file that ends early and for a header it cannot use: only these words tell.
_TRUNCATED, _NO_HEADER = "truncated", "not identified"
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Facts(NamedTuple):
    """What a file says of its picture, known once it is decoded."""

    kind: str  # JPEG, PNG, ...
    mode: str  # of the reader, before it became RGB: L, RGBA, I;16, ...
    bits: int  # per channel: 16, or 8 and less
    orientation: int  # EXIF, 1 to 8, as it was found; 1 where `exif_orientation` was off
    size: tuple[int, int]  # width, height of the whole upright image, whatever was decoded of it
    factor: int  # 2, 4 or 8 if the reader gave every second, fourth or eighth pixel in both directions; else 1


class Decoded(NamedTuple):
    """Upright RGB pixels and where they come from."""

    image: Image.Image
    facts: Facts


def decode_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    exif_orientation: bool = True,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Decode a file, or the bytes of one, to an upright 8-bit RGB image; of an animation, the first frame.

    Alpha is composited on `background` (0 to 255), 16-bit greyscale is scaled by 1/257 (of 16-bit colour the reader
    keeps the upper byte), CMYK and palettes are converted. `exif_orientation=False` leaves photos as the sensor stored
    them, which reproduces accuracies published without it (TIFF files are turned by their reader all the same).

    Raises `ImageDecodeError` for anything that does not give the right pixels, with the path, the cause and the fix:
    damaged files, other kinds of file, 32-bit pixels, more than `max_pixels` pixels. Safe to call from many threads.
    """
    return decode(source, max_pixels=max_pixels, exif_orientation=exif_orientation, background=background).image


def decode(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    exif_orientation: bool = True,
    background: tuple[int, int, int] = (255, 255, 255),
    reduction: Callable[[tuple[int, int]], int] | None = None,
    name: str = "",
) -> Decoded:
    """`decode_image` with what the file says of itself, and, on request, at reduced size.

    `reduction` is asked once, before decoding, for files whose reader can leave out detail (JPEG): given the width and
    height of the whole upright image, it answers 1, 2, 4 or 8. Other files are decoded whole. `name` is what errors
    call bytes that come from somewhere. Raises as `decode_image`.
    """
    if isinstance(source, bytes):
        name, data = name or f"image given as {len(source):,} bytes", source
    else:
        name = os.fspath(source)
        data = read_image(name)
    kind = _kind_of(data, name)
    try:
        with reader_of(kind)(BytesIO(data)) as image:
            _check_size(image, name, max_pixels)
            bits = 16 if _is_16_bit(image) else 8
            orientation, factor, stored = 1, 1, image.size
            if isinstance(image, JpegImageFile):  # says all before its pixels are read
                orientation = _orientation(image) if exif_orientation else 1
                factor = reduction(_turned(stored, orientation)) if reduction is not None else 1
                if factor > 1:
                    image.draft(None, (stored[0] // factor, stored[1] // factor))
            image.load()
            if not isinstance(image, JpegImageFile):
                orientation, stored = _orientation(image) if exif_orientation else 1, image.size
            mode = image.mode
            rgb = _to_rgb(image, name, background)
            upright = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
            return Decoded(upright, Facts(kind, mode, bits, orientation, _turned(stored, orientation), factor))
    except ImageDecodeError:
        raise
    except _DAMAGE as error:
        raise ImageDecodeError(f"{name}: {kind} image {_damage(data, error)}. Re-fetch it.") from error


def _kind_of(data: bytes, name: str) -> str:
    """Whatever the file is called, its content tells what it is. Raises `ImageDecodeError` where it cannot be read."""
    kind = image_format(data[:HEAD_BYTES])
    if kind is None:
        raise ImageDecodeError(
            f"{name}: this is no image that can be read ({readable()}): the file is {describe(data[:512])}. Replace it."
        )
    if not is_readable(kind):
        raise ImageDecodeError(
            f"{name}: this is an image of kind {kind}, and what would read it is not installed. Run: "
            f"{FORMATS[kind].advice}. Or convert it to PNG or JPEG."
        )
    return kind


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _is_16_bit(image: ImageFile.ImageFile) -> bool:
    """Also where the reader keeps 8 of them: then only the layout of the stored rows tells."""
    layout = " ".join(str(tile.args) for tile in image.tile)
    return image.format != "BMP" and (";16" in layout or "65535" in layout)  # "BGR;16" of a BMP: 5 bits per channel


def read_image(name: str) -> bytes:
    """The whole file; of a file that is no image, only the start, for it may be large. Raises `ImageDecodeError`."""
    try:
        with open(name, "rb", buffering=0) as file:  # a buffer would copy the pixels once more
            head = file.read(512)
            return head + file.read() if image_format(head) else head
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageDecodeError(
            f"{name}: the file cannot be read: {reason}. Check that it exists and that you may read it."
        ) from error


def _check_size(image: ImageFile.ImageFile, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageDecodeError(
            f"{name}: image of {width}x{height} = {width * height:,} pixels, but at most {max_pixels:,} are decoded, "
            "for a small file can claim any size and fill the memory. Shrink it, or raise max_pixels if you trust it."
        )


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where the tag is absent or the EXIF block is unreadable."""
    if isinstance(image, JpegImageFile) and not image.info.keys() & {"exif", "xmp"}:
        return 1  # looking further takes as long as reading the file
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: ImageFile.ImageFile, name: str, background: tuple[int, int, int]) -> Image.Image:
    mode = image.mode
    # Pillow opens 16-bit PGM, and older releases 16-bit PNG, as 32-bit integers; neither format has real ones.
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return _from_16_bit(image, background)
    if mode in ("I", "F"):
        pixels = "integer" if mode == "I" else "floating-point"
        raise ImageDecodeError(
            f"{name}: image with 32-bit {pixels} pixels, whose black and white levels the file does not say. "
            "Scale it to 8 or 16 bits and save it as PNG first."
        )
    if not image.has_transparency_data:
        return image if mode == "RGB" else image.convert("RGB")  # the latter would copy
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _from_16_bit(image: ImageFile.ImageFile, background: tuple[int, int, int]) -> Image.Image:
    """Greyscale 0..65535 to RGB 0..255, rounded; Pillow's own conversion turns everything above 255 white."""
    levels = np.asarray(image).astype(np.uint32)
    rgb = np.repeat(((levels + 128) // 257).astype(np.uint8)[..., None], 3, axis=-1)  # h w 3
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        rgb[levels == transparent] = background
    return Image.fromarray(rgb)


def _damage(data: bytes, error: BaseException) -> str:
    message = first_line(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"claims a size that would fill the memory ({message})"
    missing = bytes_missing(data)
    if missing:
        return f"is truncated (at least {missing:,} of its bytes are missing after byte {len(data):,})"
    if _TRUNCATED in message.lower() or isinstance(error, EOFError):
        return f"is truncated (it ends after {len(data):,} bytes, before its last pixel)"
    if _NO_HEADER in message:
        return "is damaged or empty (its header is unusable)"
    return f"is damaged ({message})"
