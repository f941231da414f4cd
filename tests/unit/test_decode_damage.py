"""A file that gives no right pixels is an error that says what is wrong with it: bombs, other kinds, damage."""

import random
import struct
import threading
import warnings

import numpy as np
import pytest
from pictures import chunk, encode, noise
from PIL import Image

from hybridvit.data.decode import decode_image
from hybridvit.errors import DatasetError, ImageDecodeError


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


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ImageDecodeError, match=r"gone\.png: the file cannot be read: No such file.*Check that"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(ImageDecodeError, match="cannot be read: Is a directory"):
        decode_image(tmp_path)


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
