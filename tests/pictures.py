"""Pictures as the files that tests decode."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

from hybridvit.data.decode import decode_image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of that kind, as Pillow writes it."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes, **options: object) -> np.ndarray:
    """What a file is decoded to: h w c, RGB."""
    image = decode_image(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def chunk(name: bytes, body: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def noise(mode: str = "RGB", side: int = 24) -> Image.Image:
    """A square picture, the same one each time."""
    rgba = np.random.default_rng(3).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return Image.fromarray(rgba).convert(mode)
