"""Every kind of image file gives the right RGB pixels, or an error that says what is wrong with it."""

import random
import struct
import threading
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from hybridvit.data.decode import decode, decode_image
from hybridvit.data.scan import find_images
from hybridvit.errors import DatasetError, ImageDecodeError


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes, **options: object) -> np.ndarray:
    image = decode_image(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)  # h w rgba


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000"])
def test_lossless_rgb_comes_back_unchanged(colours, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    rgb = np.ascontiguousarray(colours[..., :3])
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(rgb), kind, **options)), rgb)


def test_jpeg_is_close_to_its_source():
    rgb = np.full((16, 24, 3), (200, 30, 90), np.uint8)
    np.testing.assert_allclose(pixels(encode(Image.fromarray(rgb), "JPEG", quality=95)), rgb, atol=4)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "PPM"])
def test_greyscale_becomes_three_equal_channels(kind):
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))
    result = pixels(encode(Image.fromarray(grey), kind))
    np.testing.assert_allclose(result, grey[..., None].repeat(3, -1), atol=2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_one_bit_becomes_black_and_white(kind):
    bits = np.random.default_rng(1).integers(0, 2, (5, 11)).astype(bool)
    result = pixels(encode(Image.fromarray(bits), kind))
    np.testing.assert_array_equal(result, (bits * 255)[..., None].repeat(3, -1))


def over(rgb: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * rgb + (1 - share) * np.array(background)


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_the_background(colours, kind, background):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    result = pixels(encode(Image.fromarray(colours), kind, **options), background=background)
    np.testing.assert_allclose(result, over(colours[..., :3], colours[..., 3], background), atol=1)


def test_grey_with_alpha_is_composited(colours):
    image = Image.fromarray(np.ascontiguousarray(colours[..., 2:]), "LA")
    grey = colours[..., 2:3].repeat(3, -1)
    np.testing.assert_allclose(pixels(encode(image, "PNG")), over(grey, colours[..., 3], (255,) * 3), atol=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_becomes_its_colours(kind):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    expected = np.eye(3, dtype=np.uint8)[[[0, 1, 2], [2, 1, 0]]] * 255
    np.testing.assert_array_equal(pixels(encode(image, kind)), expected)


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", bytes([255, 0, 128])), ("PNG", 1), ("GIF", 1)])
def test_palette_with_alpha_is_composited(kind, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    result = pixels(encode(image, kind, transparency=transparency))[0]
    last = (127, 127, 255) if isinstance(transparency, bytes) else (0, 0, 255)
    np.testing.assert_allclose(result, [(255, 0, 0), (255, 255, 255), last], atol=1)


def test_a_colour_marked_transparent_becomes_background():
    rgb = np.array([[[255, 0, 0], [1, 2, 3]]], np.uint8)
    result = pixels(encode(Image.fromarray(rgb), "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(result, [[[255, 0, 0], [255, 255, 255]]])


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(kind):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:] = (200, 40, 90, 25)
    options = {"quality": 100} if kind == "JPEG" else {}
    paper = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    np.testing.assert_allclose(pixels(encode(Image.fromarray(inks, "CMYK"), kind, **options)), paper, atol=3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels(data), np.full((4, 6, 3), (255, 0, 0)))


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


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(colours, kind, orientation):
    image = Image.fromarray(np.ascontiguousarray(colours[..., :3])).resize((48, 32), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(pixels(data), expected)


def test_exif_6_turns_the_picture_clockwise_and_can_be_left_alone():
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 0), (0, 0, 255)])  # red left, blue right
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(image, "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(data), [[[255, 0, 0]], [[0, 0, 255]]])  # red on top
    np.testing.assert_array_equal(pixels(data, exif_orientation=False), [[[255, 0, 0], [0, 0, 255]]])


def test_unreadable_exif_leaves_the_picture_as_it_is(colours):
    rgb = np.ascontiguousarray(colours[..., :3])
    data = encode(Image.fromarray(rgb), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\xff\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(pixels(data), rgb)


def claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [11_000, 20_000])  # Pillow only warns of the first
def test_a_bomb_is_refused_before_it_is_unpacked(side):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageDecodeError, match=f"image of {side}x{side} = .* at most 89,478,485.*raise max_pixels"):
        decode_image(claiming(side, side))
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_picture_without_pixels_is_refused():
    data = bytearray(encode(Image.new("RGB", (4, 4)), "BMP"))
    data[18:22] = bytes(4)  # the width
    with pytest.raises(ImageDecodeError, match="BMP image is damaged or empty"):
        decode_image(bytes(data))


def test_max_pixels_is_the_largest_size_that_passes():
    data = encode(Image.new("RGB", (8, 5)), "PNG")
    assert decode_image(data, max_pixels=40).size == (8, 5)
    with pytest.raises(ImageDecodeError, match="8x5 = 40 pixels, but at most 39"):
        decode_image(data, max_pixels=39)


def test_threads_refuse_bombs_without_touching_one_another():
    good, bomb, outcomes = encode(Image.new("RGB", (40, 40)), "JPEG"), claiming(11_000, 11_000), []

    def work() -> None:
        for _ in range(50):
            decode_image(good)
            with pytest.raises(ImageDecodeError):
                decode_image(bomb)
        outcomes.append(True)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 4
    assert warnings.filters == filters


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"\n <html><body>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer.*git lfs pull"),
        (b"just some words\nand more", "text, beginning 'just some words'"),
        (("é" * 400).encode()[:513], "text, beginning"),
        (b"<svg xmlns='x'></svg>", "an SVG drawing"),
        (b"<?xml version='1.0'?><a/>", "an XML document"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"\x00\x00\x00\x18ftypisom\x00", r"a video or an image of a kind without reader \(isom\)"),
        (b"\x00" * 600, "filled with zero bytes"),
        (b"\x01\x02\xfe\xff\x00", "of an unknown kind"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(tmp_path, content, words):
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageDecodeError, match=rf"cat\.jpg: this is no image.*the file is {words}.*Replace it"):
        decode_image(path)


@pytest.mark.parametrize(
    ("kind", "mode", "ending"),
    [
        *(("TGA", mode, ".tga") for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        *(("JPEG2000", mode, ".jp2") for mode in ("RGB", "L", "RGBA")),
        *(("AVIF", mode, ".avif") for mode in ("RGB", "L", "RGBA")),
        ("MPO", "RGB", ".mpo"),
    ],
)
@pytest.mark.parametrize("named", ["its own", ".jpg"])
def test_what_pillow_reads_is_read_by_its_content_and_found_by_its_ending(tmp_path, kind, mode, ending, named):
    picture = Image.fromarray(np.full((20, 30, 4), (200, 90, 30, 255), np.uint8)).convert(mode)
    path = tmp_path / f"photo{ending if named == 'its own' else named}"
    path.write_bytes(encode(picture, kind))
    assert find_images([tmp_path]) == [path]
    np.testing.assert_allclose(np.asarray(decode_image(path)).astype(int), np.asarray(picture.convert("RGB")), atol=12)


def test_an_avif_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encode(noise("RGB", 24).crop((0, 0, 24, 10)), "AVIF", exif=exif)).size == (10, 24)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ImageDecodeError, match=r"gone\.png: the file cannot be read: No such file.*Check that"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(ImageDecodeError, match="cannot be read: Is a directory"):
        decode_image(tmp_path)


def noise(mode: str = "RGB", side: int = 24) -> Image.Image:
    rgba = np.random.default_rng(3).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "JPEG2000", "AVIF"])
def test_half_a_file_is_called_truncated(kind):
    data = encode(noise(side=64), kind)
    with pytest.raises(ImageDecodeError, match=r"image given as .*(truncated|damaged).*Re-fetch it"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_the_missing_bytes_are_counted(kind):
    data = encode(noise(side=64), kind)
    with pytest.raises(ImageDecodeError, match=r"truncated \(at least \d+ of its bytes are missing"):
        decode_image(data[:-47])


def test_a_wrong_checksum_is_called_damage():
    data = bytearray(encode(noise(side=64), "PNG"))
    data[-20] ^= 0xFF  # in the last chunk of pixels
    with pytest.raises(ImageDecodeError, match="PNG image is damaged"):
        decode_image(bytes(data))


CORPUS = {
    "jpeg": lambda: encode(noise(), "JPEG"),
    "progressive jpeg": lambda: encode(noise(), "JPEG", progressive=True),
    "cmyk jpeg": lambda: encode(noise("CMYK"), "JPEG"),
    "png": lambda: encode(noise(), "PNG"),
    "alpha png": lambda: encode(noise("RGBA"), "PNG"),
    "palette png": lambda: encode(noise("P"), "PNG", transparency=3),
    "16-bit png": lambda: encode(Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24)), "PNG"),
    "gif": lambda: encode(noise("P"), "GIF", save_all=True, append_images=[noise("L")]),
    "webp": lambda: encode(noise("RGBA"), "WEBP"),
    "bmp": lambda: encode(noise(), "BMP"),
    "tiff": lambda: encode(noise(), "TIFF"),
    "deflated tiff": lambda: encode(noise(), "TIFF", compression="tiff_deflate"),
    "ppm": lambda: encode(noise(), "PPM"),
    "pgm": lambda: encode(noise("L"), "PPM"),
    "tga": lambda: encode(noise(), "TGA", compression="tga_rle"),
    "jpeg 2000": lambda: encode(noise(), "JPEG2000"),
    "avif": lambda: encode(noise(), "AVIF"),
}


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        kind, place = chance.randrange(5), chance.randrange(max(1, min(len(changed), chance.choice((64, 10**6)))))
        length = chance.randint(1, 12)
        if kind == 0:
            changed[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            changed[place : place + length] = chance.randbytes(length)
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = chance.randbytes(length)
        else:
            del changed[max(place, 1) :]
    return bytes(changed) or b"\x00"


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", CORPUS)
def test_a_damaged_file_gives_pixels_or_one_kind_of_error(name):
    data, chance = CORPUS[name](), random.Random(name)
    messages: list[str] = []
    step = max(1, len(data) // 60)
    truncated = [data[:end] for end in range(0, len(data), step)]
    for content in [*truncated, *(mutate(data, chance) for _ in range(400))]:
        try:
            image = decode_image(content, max_pixels=1_000_000)
        except ImageDecodeError as error:
            messages.append(str(error))
        except Exception as error:
            pytest.fail(f"{type(error).__name__} ({error}) instead of an ImageDecodeError for {content.hex()}")
        else:
            assert image.mode == "RGB"
    assert len(messages) > 30
    assert not [message for message in messages if "\n" in message]


def test_a_decode_error_is_a_dataset_error_with_its_exit_code():
    with pytest.raises(DatasetError) as caught:
        decode_image(b"")
    assert caught.value.exit_code == 3
