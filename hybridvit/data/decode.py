"""The one way from an image file to pixels, shared by training, evaluation, prediction and export checks."""

import os
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from io import BytesIO
from typing import IO, NamedTuple

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


class ImageChange(ABC):
    """What is done to decoded pictures before anything else sees them."""

    @abstractmethod
    def __call__(self, image: Image.Image, path: str) -> Image.Image:
        """A changed copy of the upright RGB picture at `path`; of the same size, unless no target depends on it."""


class Changed(NamedTuple):
    """A file, or the bytes of one, of which a changed picture is decoded."""

    source: "str | os.PathLike[str] | bytes"
    change: ImageChange
    path: str  # that the picture is known by


ImageSource = str | os.PathLike[str] | bytes | Changed
"""A file, or the bytes of one; or what is to become of its picture."""
Levels = tuple[float, float]
"""What is black and what is white in a picture of more than 8 bits; black may be the higher one."""
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
# Pillow 13 has no classes of errors for a file that ends early, for a header it cannot use and for pixels it does not
# know: only these words tell.
_TRUNCATED, _NO_HEADER, _NO_DEPTH = "truncated", "not identified", "unknown pixel mode"
_ORIENTATION_TAG = 0x0112
UPRIGHT = {
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
    bits: int  # per channel, as stored: 8 (and less), 12, 16, 32 or 64
    orientation: int  # EXIF, 1 to 8, as it was found; 1 where `exif_orientation` was off
    size: tuple[int, int]  # width, height of the whole upright image, whatever was decoded of it
    factor: int  # 2, 4 or 8 if the reader gave every second, fourth or eighth pixel in both directions; else 1
    range: Levels | None = None  # the lowest and the highest level of a grey picture of more than 8 bits
    white: float = 255.0  # the level that became white, of such a picture


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
    levels: Levels | None = None,
) -> Image.Image:
    """Decode a file, or the bytes of one, to an upright 8-bit RGB image; of an animation, the first frame.

    Alpha is composited on `background` (0 to 255), CMYK and palettes are converted. Greyscale of more than 8 bits is
    scaled from `levels`, (black, white), to 0..255; without them from the whole range of its 12 or 16 bits, and signed,
    32-bit and floating-point pixels are refused. Of 16-bit colour the reader keeps the upper byte.
    `exif_orientation=False` leaves photos as the sensor stored them, which reproduces accuracies published without it
    (TIFF files are turned by their reader all the same).

    Raises `ImageDecodeError` for anything that does not give the right pixels, with the path, the cause and the fix:
    damaged files, other kinds of file, pixels without black and white, more than `max_pixels` pixels. Safe to call from
    many threads.
    """
    return decode(
        source, max_pixels=max_pixels, exif_orientation=exif_orientation, background=background, levels=levels
    ).image


def decode(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    exif_orientation: bool = True,
    background: tuple[int, int, int] = (255, 255, 255),
    levels: Levels | None = None,
    reduction: Callable[[tuple[int, int]], int] | None = None,
    name: str = "",
) -> Decoded:
    """`decode_image` with what the file says of itself, and, on request, at reduced size.

    `reduction` is asked once, before decoding, for files whose reader can leave out detail (JPEG): given the width and
    height of the whole upright image, it answers 1, 2, 4 or 8. Other files are decoded whole, and so are pictures that
    are changed. `name` is what errors call bytes that come from somewhere. Raises as `decode_image`, and as the change.
    """
    if isinstance(source, Changed):
        whole = decode(
            source.source,
            max_pixels=max_pixels,
            exif_orientation=exif_orientation,
            background=background,
            levels=levels,
            name=name,
        )
        return whole._replace(image=source.change(whole.image, source.path))
    name, data, kind = _opened(source, name)
    try:
        with reader_of(kind)(BytesIO(data)) as image:
            _check_size(image, name, max_pixels)
            depth = _depth(image)
            orientation, factor, stored = 1, 1, image.size
            if isinstance(image, JpegImageFile):  # says all before its pixels are read
                orientation = _orientation(image) if exif_orientation else 1
                factor = reduction(turned(stored, orientation)) if reduction is not None else 1
                if factor > 1:
                    image.draft(None, (stored[0] // factor, stored[1] // factor))
            image.load()
            if not isinstance(image, JpegImageFile):
                orientation, stored = _orientation(image) if exif_orientation else 1, image.size
            mode = image.mode
            deep = _deep(image, depth, levels, name)
            rgb = _to_rgb(image, background) if deep is None else deep.rgb(image, background)
            upright = rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
            facts = Facts(kind, mode, depth.bits, orientation, turned(stored, orientation), factor)
            return Decoded(upright, facts if deep is None else facts._replace(range=deep.range, white=deep.white))
    except ImageDecodeError:
        raise
    except _DAMAGE as error:
        raise ImageDecodeError(f"{name}: {kind} image {_damage(data, error)}.") from error


class Stored(NamedTuple):
    """A picture as its file has it: in its own mode, not turned."""

    image: Image.Image
    kind: str  # JPEG, PNG, ...
    layout: str  # of the stored rows, in Pillow's notation, such as "L;4"


def decode_stored(source: ImageSource, *, max_pixels: int = MAX_PIXELS, name: str = "") -> Stored:
    """Decode a file, or the bytes of one, whose pixels are numbers rather than colours. Raises `ImageDecodeError`."""
    name, data, kind = _opened(source, name)
    try:
        with reader_of(kind)(BytesIO(data)) as image:
            _check_size(image, name, max_pixels)
            layout = str(image.tile[0].args) if image.tile else ""
            image.load()
            return Stored(image.copy(), kind, layout)
    except ImageDecodeError:
        raise
    except _DAMAGE as error:
        raise ImageDecodeError(f"{name}: {kind} image {_damage(data, error)}.") from error


def size_of(source: ImageSource, *, name: str = "") -> tuple[tuple[int, int], int]:
    """Width and height as a file's header tells them, not turned, and its EXIF orientation. Raises `ImageDecodeError`.

    A file is not read to its end.
    """
    if isinstance(source, Changed):
        return size_of(source.source, name=name)
    if isinstance(source, bytes):
        name, data, kind = _opened(source, name)
        return _header(BytesIO(data), kind, name)
    name = os.fspath(source)
    try:
        with open(name, "rb") as file:
            kind = _kind_of(file.read(HEAD_BYTES), name)
            file.seek(0)
            return _header(file, kind, name)
    except OSError as error:
        raise ImageDecodeError(f"{name}: the file cannot be read: {error.strerror or error}.") from error


def _header(file: IO[bytes], kind: str, name: str) -> tuple[tuple[int, int], int]:
    try:
        with reader_of(kind)(file) as image:
            return image.size, _orientation(image)
    except _DAMAGE as error:
        raise ImageDecodeError(f"{name}: {kind} image is damaged ({first_line(error)}). Re-fetch it.") from error


def depth_of(source: ImageSource) -> int:
    """The bits per channel that a file's header tells. Raises `ImageDecodeError`."""
    name, data, kind = _opened(source, "")
    try:
        with reader_of(kind)(BytesIO(data)) as image:
            return _depth(image).bits
    except _DAMAGE as error:
        raise ImageDecodeError(f"{name}: {kind} image {_damage(data, error)}.") from error


def _opened(source: ImageSource, name: str) -> tuple[str, bytes, str]:
    """Name, content and kind of a file, or of the bytes of one. Raises `ImageDecodeError`."""
    if isinstance(source, Changed):
        return _opened(source.source, name)
    if isinstance(source, bytes):
        name, data = name or f"image given as {len(source):,} bytes", source
    else:
        name = os.fspath(source)
        data = read_image(name)
    return name, data, _kind_of(data, name)


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


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of the upright picture of a stored one."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


class _Depth(NamedTuple):
    """How the levels of a channel are stored."""

    bits: int
    kind: str = "unsigned"  # or signed, floating-point

    def __str__(self) -> str:
        return f"{self.bits}-bit floating-point" if self.kind == "floating-point" else f"{self.kind} {self.bits}-bit"


def _depth(image: ImageFile.ImageFile) -> _Depth:
    """As the layout of the stored rows tells, also where the reader keeps 8 bits of more, or widens fewer to 32."""
    layout = " ".join(str(tile.args) for tile in image.tile)
    if image.format == "BMP":  # whose "BGR;16" has 5 bits per channel
        return _Depth(8)
    if image.format == "PPM":  # says the highest level
        highest = max((int(each) for each in re.findall(r"\b\d+\b", layout)), default=255)
        return _Depth(max(8, min(highest, 65535).bit_length()) if ";16" not in layout else 16)
    found = re.search(r"\b(\w+);(\d+)[A-Z]*?(S|F)?\b", layout)
    if found is None or int(found[2]) <= 8:
        return _Depth(16 if image.mode.startswith("I;16") else 8)
    kind = "floating-point" if found[1] == "F" else "signed" if found[3] == "S" else "unsigned"
    return _Depth(int(found[2]), kind)


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
            "for a small file can claim any size and fill the memory. Shrink it; a Python "
            "program that trusts it can raise max_pixels."
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


def _to_rgb(image: ImageFile.ImageFile, background: tuple[int, int, int]) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # the latter would copy
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


class _Deep(NamedTuple):
    """A grey picture of more than 8 bits."""

    values: np.ndarray
    black: float
    white: float
    range: Levels  # of the finite values

    def rgb(self, image: ImageFile.ImageFile, background: tuple[int, int, int]) -> Image.Image:
        """Scaled to 0..255 and rounded; Pillow's own conversion turns everything above 255 white."""
        shares = (self.values - np.float64(self.black)) / (self.white - self.black)
        grey = np.floor(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)
        rgb = np.repeat(grey[..., None], 3, axis=-1)  # h w 3
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            rgb[self.values == transparent] = background
        return Image.fromarray(rgb)


def _deep(image: ImageFile.ImageFile, depth: _Depth, levels: Levels | None, name: str) -> _Deep | None:
    """The levels of a grey picture of more than 8 bits; None for others. Raises `ImageDecodeError`."""
    if not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
        if levels is not None and depth.bits > 8:
            raise ImageDecodeError(
                f"{name}: image of {depth.bits}-bit colour, of which the reader keeps the upper 8 bits, so that no "
                "levels of black and white can be applied (data.levels). Scale it to 8 bits and save it as PNG."
            )
        return None
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    found = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if levels is None:
        # Pillow opens 16-bit PGM, and older releases 16-bit PNG, as 32-bit integers, scaled; neither has real ones.
        if image.mode in ("I", "F") and image.format not in ("PNG", "PPM"):
            raise ImageDecodeError(
                f"{name}: image with {depth} pixels from {found[0]:,.6g} to {found[1]:,.6g}, whose black and white "
                f"levels the file does not say. Say them, as in --data.levels '[{found[0]:.6g},{found[1]:.6g}]' of "
                "train, or scale it to 8 or 16 bits and save it as PNG first."
            )
        # A TIFF of 12 packed bits ends at 4,095; what else has fewer than 16 was scaled by its reader.
        levels = (0.0, 4095.0 if depth.bits == 12 and image.format == "TIFF" else 65535.0)
    return _Deep(values, *levels, found)


def _damage(data: bytes, error: BaseException) -> str:
    """What is wrong with the file, and the fix."""
    message = first_line(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"claims a size that would fill the memory ({message}). Re-fetch it"
    if _NO_DEPTH in message:
        return f"has pixels of a depth that its reader does not know ({message}). Save it with 8 or 16 bits"
    missing = bytes_missing(data)
    if missing:
        fault = f"is truncated (at least {missing:,} of its bytes are missing after byte {len(data):,})"
    elif _TRUNCATED in message.lower() or isinstance(error, EOFError):
        fault = f"is truncated (it ends after {len(data):,} bytes, before its last pixel)"
    elif _NO_HEADER in message:
        fault = "is damaged or empty (its header is unusable)"
    else:
        fault = f"is damaged ({message})"
    return f"{fault}. Re-fetch it"
