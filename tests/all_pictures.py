"""Two hundred pictures, of every kind that is decoded: what a service is asked with."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from pictures import chunk, encode
from PIL import Image

NUM_PICTURES = 200
KINDS = (  # format, mode, options
    *(("JPEG", mode, {"quality": quality}) for mode in ("RGB", "L", "CMYK") for quality in (60, 95)),
    ("JPEG", "RGB", {"progressive": True}),
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "CMYK", "P", "1")),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    *(("BMP", mode, {}) for mode in ("RGB", "L", "1")),
    *(("GIF", mode, {}) for mode in ("P", "L")),
    *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (True, False)),
    *(("PPM", mode, {}) for mode in ("RGB", "L", "1")),
    *(("TGA", mode, {}) for mode in ("RGB", "RGBA", "L")),
    *(("JPEG2000", mode, {}) for mode in ("RGB", "L")),
    *(("AVIF", mode, {}) for mode in ("RGB", "RGBA")),
)
EVERY_ORIENTATION = tuple((kind, "RGB", turn) for kind in ("JPEG", "PNG", "WEBP") for turn in range(2, 9))


def all_pictures(count: int = NUM_PICTURES) -> list[bytes]:
    """So many files, the same ones each time; each kind comes with several pictures and sizes."""
    return [content for content, _ in zip(_endless(), range(count), strict=False)]


def _endless() -> Iterator[bytes]:
    generator = np.random.default_rng(17)
    yield colour_of_16_bits(_pixels(generator))
    while True:
        for kind, mode, options in KINDS:
            yield encode(_in_mode(_pixels(generator), mode), kind, **options)
        for kind, mode, turn in EVERY_ORIENTATION:
            exif = Image.Exif()
            exif[0x0112] = turn
            yield encode(_in_mode(_pixels(generator), mode), kind, exif=exif)


def _pixels(generator: np.random.Generator) -> np.ndarray:
    """A picture (h w 4) of soft shapes, as photographs have, in one of many sizes."""
    height, width = generator.integers(20, 160, 2)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 4), dtype=np.uint8))
    return np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC))


def _in_mode(pixels: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels if mode in ("RGBA", "LA") else np.ascontiguousarray(pixels[..., :3])).convert(mode)


def colour_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits in each of three channels, which Pillow does not write."""
    levels = pixels[..., :3].astype(np.uint16) * 257
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
