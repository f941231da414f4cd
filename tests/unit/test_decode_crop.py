"""A crop of a JPEG decoded at reduced size shows the same part of the picture; everything else is bit-identical."""

import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from no_augment import NO_AUGMENT
from PIL import Image
from timm.data import create_transform

from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.crop import Crop, decode_crop, largest_reduction, resized_crop
from hybridvit.data.decode import MAX_PIXELS, decode_image
from hybridvit.data.seeding import seeded
from hybridvit.data.transforms import TrainTransform
from hybridvit.errors import ImageDecodeError


def waves(width: int, height: int, length_px: int = 48) -> Image.Image:
    """Another wave in every channel: one across, one down, one diagonal."""
    y, x = np.mgrid[:height, :width] * (2 * np.pi / length_px)
    levels = np.stack([np.sin(x), np.sin(y), np.sin((x + y) / 2)], axis=-1)
    return Image.fromarray((127.5 + 100 * levels).round().astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    image.save(file, kind, exif=exif, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
    return file.getvalue()


@pytest.mark.parametrize(
    ("crop", "factor"),
    [
        ((64, 64), 2),
        ((63, 900), 1),
        ((900, 63), 1),
        ((127, 128), 2),
        ((128, 128), 4),
        ((256, 255), 4),
        ((999, 256), 8),
        ((10, 10), 1),
    ],
)
def test_both_sides_keep_the_pixels_that_are_looked_at(crop, factor):
    assert largest_reduction(Crop(0, 0, *crop), (32, 32)) == factor
    assert largest_reduction(Crop(0, 0, 128, 64), (32, 64)) == 2  # height, width
    assert largest_reduction(Crop(0, 0, 128, 64), (64, 32)) == 1


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_reduced_crop_is_the_same_part_of_the_picture(orientation, factor):
    # Neither side divides by 2. An error of one pixel of the reduced image would change 26 levels.
    data = encode(waves(525, 395, 24 * factor), orientation=orientation)
    whole = decode_image(data)
    side = 32 if factor == 8 else 40
    crop = Crop(whole.width - factor * side - 13, 7, factor * side + 6, factor * side + 1)
    assert largest_reduction(crop, (side, side)) == factor
    sizes = []

    def choose(size: tuple[int, int]) -> Crop:
        sizes.append(size)
        return crop

    result = decode_crop(data, choose, (side, side), max_pixels=MAX_PIXELS)
    assert sizes == [whole.size]
    expected = np.asarray(resized_crop(whole, crop, (side, side)), float)
    difference = np.abs(np.asarray(result, float) - expected)[2:-2, 2:-2]  # the very edge sees less of its surroundings
    assert 0 < difference.mean() < 1.0
    assert difference.max() < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("size", [(140, 90), (63, 200)])
def test_nothing_changes_where_no_detail_can_be_left_out(kind, size):
    """A small JPEG, and every file of a format whose reader gives all pixels or none."""
    sides = size if kind == "JPEG" else (4 * size[0], 4 * size[1])
    file = BytesIO()
    waves(*sides).save(file, kind)
    preprocessing = Preprocessing(image_size=(64, 64))
    reduced, full = (TrainTransform(AugmentConfig(), preprocessing, reduced_decode=on) for on in (True, False))
    for sample in range(20):
        with seeded(sample):
            ours = reduced.of_file(file.getvalue())
        with seeded(sample):
            assert torch.equal(full.of_file(file.getvalue()), ours)


@pytest.mark.parametrize("channels", [3, 1])
def test_training_equals_timm_to_the_last_bit(channels):
    """The random stream, the crop, the distortions, the normalisation and the erasing."""
    augment = AugmentConfig(random_erasing=0.6)
    preprocessing = Preprocessing(image_size=(48, 64)).for_channels(channels)
    ours = TrainTransform(augment, preprocessing)
    theirs = create_transform(
        (48, 64),
        is_training=True,
        hflip=0.5,
        auto_augment=augment.rand_augment,
        interpolation="bicubic",
        mean=preprocessing.mean * (4 - channels if channels == 1 else 1),
        std=preprocessing.std * (4 - channels if channels == 1 else 1),
        re_prob=0.6,
        re_mode="pixel",
    )
    image = waves(150, 110)
    for sample in range(40):
        with seeded(sample):
            tensor = ours(image)
            after = random.random(), torch.rand(1).item()
        if channels == 3:
            with seeded(sample):
                assert torch.equal(theirs(image), tensor)
                assert (random.random(), torch.rand(1).item()) == after
        assert tensor.shape == (channels, 48, 64)
        assert tensor.is_contiguous()


def test_reduction_changes_no_random_number_and_few_levels():
    data = encode(waves(900, 700))
    preprocessing = Preprocessing(image_size=(64, 64), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    augment = AugmentConfig(scale=(0.3, 1.0), rand_augment="", color_jitter=0.0, random_erasing=0.0)
    reduced, full = (TrainTransform(augment, preprocessing, reduced_decode=on) for on in (True, False))
    differences = []
    for sample in range(12):
        with seeded(sample):
            ours = reduced.of_file(data)
            after = random.random(), torch.rand(1).item()
        with seeded(sample):
            differences.append((full.of_file(data) - ours).abs().mean().item())
            assert (random.random(), torch.rand(1).item()) == after
    assert min(differences) > 0
    assert max(differences) < 3


def test_a_truncated_jpeg_is_refused_at_any_size(tmp_path: Path):
    data = encode(waves(900, 700))
    transform = TrainTransform(AugmentConfig(scale=(1.0, 1.0)), Preprocessing(image_size=(64, 64)))
    assert isinstance(transform, TrainTransform)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageDecodeError, match=r"cut\.jpg: JPEG image is truncated.*Re-fetch it"):
        transform.of_file(path)
    with pytest.raises(ImageDecodeError, match=r"900x700 = 630,000 pixels, but at most 600,000"):
        transform.of_file(data, max_pixels=600_000)


def test_exif_orientation_can_be_left_alone_in_training():
    data = encode(waves(700, 300), orientation=6)
    preprocessing = Preprocessing(image_size=(64, 64), exif_orientation=False)
    augment = NO_AUGMENT
    stored = encode(waves(700, 300))
    for reduced in (True, False):
        ours = TrainTransform(augment, preprocessing, reduced_decode=reduced)
        with seeded(1):
            result = ours.of_file(data)
        with seeded(1):
            assert torch.equal(ours.of_file(stored), result)
