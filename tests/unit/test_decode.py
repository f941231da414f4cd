"""Every kind of image file gives the right RGB pixels, upright."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from pictures import encode, noise, pixels
from PIL import Image, ImageOps

from hybridvit.data.decode import decode_image
from hybridvit.data.scan import find_images


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
