"""Pictures of more than 8 bits are scaled to 8, by their own range or by the levels that are given."""

import struct
import zlib

import numpy as np
import pytest
from pictures import chunk, encode, pixels
from PIL import Image

from hybridvit.data.decode import decode, decode_image
from hybridvit.errors import ImageDecodeError


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_greyscale_is_scaled_not_saturated(kind):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    result = pixels(encode(Image.fromarray(levels), kind))
    expected = np.floor(levels / 257 + 0.5)
    np.testing.assert_array_equal(result, expected[..., None].repeat(3, -1))
    assert 127 <= result.mean() <= 128  # a saturating conversion gives 254


def test_16_bit_colour_keeps_its_levels():
    levels = np.random.default_rng(2).integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_allclose(pixels(data), levels / 257, atol=1)


def test_a_transparent_16_bit_level_becomes_background():
    levels = np.array([[0, 257, 65535]], np.uint16)
    header = struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0)
    body = zlib.compress(b"\x00" + levels.astype(">u2").tobytes())
    parts = [(b"IHDR", header), (b"tRNS", struct.pack(">H", 257)), (b"IDAT", body), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    np.testing.assert_array_equal(pixels(data, background=(9, 8, 7)), [[[0] * 3, [9, 8, 7], [255] * 3]])


def tiff(values: np.ndarray) -> bytes:
    """Grey rows as they are, with the depth and the sign of their type, which Pillow writes only some of."""
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    tags = [
        (256, width), (257, height), (258, 8 * values.dtype.itemsize), (259, 1), (262, 1), (273, 8), (277, 1),
        (278, height), (279, values.nbytes), (339, sample_format),
    ]  # fmt: skip
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = values.tobytes()
    return b"II*\x00" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + rows + b"\0" * 4


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(np.int16, "signed 16-bit"), (np.int32, "signed 32-bit"), (np.uint32, "unsigned 32-bit"),
     (np.float32, "32-bit floating-point")],
)  # fmt: skip
def test_pixels_without_black_and_white_are_called_what_they_are_and_read_with_levels(tmp_path, dtype, words):
    path = tmp_path / "depth.tif"
    path.write_bytes(tiff(np.array([[100, 300], [200, 700]], dtype)))
    with pytest.raises(
        ImageDecodeError,
        match=rf"depth.tif: image with {words} pixels from 100 to 700, .*--data.levels '\[100,700\]'.*8 or 16 bits",
    ):
        decode_image(path)
    np.testing.assert_array_equal(pixels(path, levels=(100, 300))[..., 0], [[0, 255], [128, 255]])
    np.testing.assert_array_equal(pixels(path, levels=(300, 100))[..., 0], [[255, 0], [128, 0]])  # white is low


def test_a_depth_that_the_reader_does_not_know_is_no_damage():
    with pytest.raises(ImageDecodeError, match=r"depth that its reader does not know .*Save it with 8 or 16 bits\."):
        decode_image(tiff(np.zeros((2, 2), np.float64)))


def test_levels_spread_what_is_used_of_16_bits():
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    data = encode(Image.fromarray(levels), "TIFF")
    assert pixels(data).max() == 16
    result = pixels(data, levels=(0, 4095))
    np.testing.assert_array_equal(result[..., 1], np.floor(levels / 4095 * 255 + 0.5))
    facts = decode(data).facts
    assert (facts.bits, facts.range, facts.white) == (16, (0, 4095), 65535)
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(rgb), "PNG"), levels=(0, 4095)), rgb)


def test_a_tiff_of_12_packed_bits_is_read_to_its_own_white():
    levels = np.array([[0, 4095], [2048, 1024]])
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in levels.tolist())
    data = bytearray(tiff(np.frombuffer(packed, np.uint8)[None]))
    tags = {256: 2, 257: 2, 258: 12, 278: 2}
    first = struct.unpack_from("<I", data, 4)[0] + 2
    for place in range(first, first + 120, 12):
        if (tag := struct.unpack_from("<H", data, place)[0]) in tags:
            struct.pack_into("<I", data, place + 8, tags[tag])
    np.testing.assert_array_equal(pixels(bytes(data))[..., 0], [[0, 255], [128, 64]])
    assert decode(bytes(data)).facts.bits == 12


@pytest.mark.parametrize(("highest", "bits"), [(255, 8), (1023, 10), (4095, 12), (65535, 16)])
def test_the_depth_of_a_pgm_is_that_of_its_highest_level(highest, bits):
    body = struct.pack(">HH", highest, 0) if highest > 255 else bytes([highest, 0])
    image, facts = decode(b"P5 2 1 %d\n" % highest + body)
    assert facts.bits == bits
    np.testing.assert_array_equal(np.asarray(image)[..., 0], [[255, 0]])


def test_colour_of_16_bits_cannot_follow_levels():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 7)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    with pytest.raises(ImageDecodeError, match="image of 16-bit colour, of which the reader keeps the upper 8 bits"):
        decode_image(data, levels=(0, 4095))
