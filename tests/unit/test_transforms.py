"""Evaluation sees the pixels that published accuracies were measured on; training sees what the settings say."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from no_augment import NO_AUGMENT
from peak import forget_peak, peak_bytes
from PIL import Image
from timm.data import create_transform

from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.preprocess import cut, preprocess
from hybridvit.data.seeding import derive_seed, seeded
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import UsageError


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(500, 375), (375, 501), (64, 64), (7, 5), (3, 40)])
@pytest.mark.parametrize("image_size", [(256, 256), (224, 224), (192, 320), (65, 33)])
@pytest.mark.parametrize(
    ("crop_mode", "crop_fraction", "interpolation"),
    [
        ("center", 0.9, "bicubic"),
        ("center", 0.875, "bilinear"),
        ("center", 1.0, "nearest"),
        ("squash", 0.95, "bicubic"),
    ],
)
def test_evaluation_equals_timm_to_the_last_bit(size, image_size, crop_mode, crop_fraction, interpolation):
    settings = Preprocessing(
        image_size=image_size, crop_mode=crop_mode, crop_fraction=crop_fraction, interpolation=interpolation
    )
    theirs = create_transform(
        (3, *image_size),
        crop_pct=crop_fraction,
        crop_mode=crop_mode,
        interpolation=interpolation,
        mean=settings.mean,
        std=settings.std,
    )
    ours = EvalTransform(settings)(noise(*size))
    assert ours.shape == (3, *image_size)
    torch.testing.assert_close(ours, theirs(noise(*size)), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 5000), (65000, 2)])
def test_a_sliver_of_an_image_needs_no_gigabytes(size):
    settings = Preprocessing(image_size=(256, 256), mean=(0, 0, 0), std=(1, 1, 1))
    forget_peak()
    before = peak_bytes()
    values = preprocess(Image.new("RGB", size, (51, 102, 255)), settings)
    assert peak_bytes() - before < 50e6
    np.testing.assert_allclose(values, np.full((3, 256, 256), np.array([0.2, 0.4, 1])[:, None, None]), atol=1e-6)


@pytest.mark.parametrize("size", [(97, 61), (61, 400)])
def test_resizing_only_the_centre_gives_the_same_picture(size, monkeypatch):
    settings = Preprocessing(image_size=(48, 40))
    whole = np.asarray(cut(noise(*size), settings), int)
    monkeypatch.setattr("hybridvit.data.preprocess._MOST_RESIZED_PIXELS", 0)
    np.testing.assert_allclose(np.asarray(cut(noise(*size), settings), int), whole, atol=2)


def test_a_plain_image_comes_out_as_the_formula_says():
    settings = Preprocessing(image_size=(4, 6), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    values = preprocess(Image.new("RGB", (90, 70), (255, 0, 51)), settings)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.full((3, 4, 6), np.array([1.0, -1.0, 0.1])[:, None, None]), rtol=1e-6)


def test_one_mean_makes_the_image_grey():
    settings = Preprocessing(image_size=(8, 8), mean=(0.5,), std=(0.5,))
    for transform in (EvalTransform(settings), TrainTransform(AugmentConfig(random_erasing=0.0), settings)):
        tensor = transform(Image.new("RGB", (20, 20), (255, 255, 255)))
        assert tensor.shape == (1, 8, 8)
    torch.testing.assert_close(EvalTransform(settings)(Image.new("RGB", (9, 9), "white")), torch.ones(1, 8, 8))


@pytest.mark.parametrize("build", [EvalTransform, lambda settings: TrainTransform(AugmentConfig(), settings)])
def test_two_means_are_refused_before_any_image(build):
    with pytest.raises(UsageError, match=r"2 means and 3 standard deviations.*1 channel .* or 3"):
        build(Preprocessing(mean=(0.5, 0.5)))


def test_the_cut_is_what_the_model_sees():
    settings = Preprocessing(image_size=(10, 20), crop_fraction=0.5, mean=(0, 0, 0), std=(1, 1, 1))
    seen = np.asarray(cut(noise(60, 50), settings), np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(preprocess(noise(60, 50), settings), seen, rtol=1e-6)


def test_the_defaults_are_timms_training_transform_with_the_same_seeds():
    settings = Preprocessing(image_size=(48, 48))
    theirs = create_transform(
        (3, 48, 48),
        is_training=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
    )
    ours = TrainTransform(AugmentConfig(), settings)
    for sample in range(12):
        with seeded(0, sample):
            expected = theirs(noise(80, 60))
        with seeded(0, sample):
            torch.testing.assert_close(ours(noise(80, 60)), expected, rtol=0, atol=0)


def test_with_everything_off_training_sees_the_evaluation_image():
    settings = Preprocessing(image_size=(32, 32), crop_fraction=1.0)
    image = noise(50, 50)
    torch.testing.assert_close(TrainTransform(NO_AUGMENT, settings)(image), EvalTransform(settings)(image))


def test_flips_happen_only_where_asked_for():
    settings = Preprocessing(image_size=(16, 16), crop_fraction=1.0)
    image = Image.fromarray(np.tile(np.arange(0, 256, 16, dtype=np.uint8)[None, :, None], (16, 1, 3)))  # brighter right
    off = AugmentConfig(scale=(1, 1), ratio=(1, 1), hflip=0, rand_augment="", color_jitter=0, random_erasing=0)
    on = AugmentConfig(scale=(1, 1), ratio=(1, 1), hflip=1, rand_augment="", color_jitter=0, random_erasing=0)
    kept, flipped = TrainTransform(off, settings)(image), TrainTransform(on, settings)(image)
    torch.testing.assert_close(kept, EvalTransform(settings)(image))
    torch.testing.assert_close(flipped, kept.flip(-1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": (0.0, 1.0)}, r"augment\.scale is \[0\.0, 1\.0\].*between 0 and 1"),
        ({"scale": (0.5, 0.2)}, r"augment\.scale.*smallest first"),
        ({"ratio": (2.0, 1.0)}, r"augment\.ratio.*smallest first"),
        ({"hflip": 1.5}, r"augment\.hflip is 1\.5, .*between 0 and 1"),
        ({"label_smoothing": -0.1}, r"augment\.label_smoothing is -0\.1"),
        ({"mixup": -1.0}, r"augment\.mixup is -1\.0, but it must be 0 \(off\) or a positive"),
        ({"cutmix": float("nan")}, r"augment\.cutmix is nan"),
        ({"erasing_fill": "grey"}, r"augment\.erasing_fill is 'grey', .*'const', 'rand' or 'pixel'"),
        ({"rand_augment": "rand-q9"}, r"augment\.rand_augment is 'rand-q9'.*Use 'rand-m9-mstd0\.5-inc1', or ''"),
    ],
)
def test_a_setting_out_of_range_is_named(change, words):
    with pytest.raises(UsageError, match=words):
        AugmentConfig(**change)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.8", "rand-m15-mmax20", "rand", ""])
def test_every_accepted_policy_is_one_timm_runs(policy):
    transform = TrainTransform(AugmentConfig(rand_augment=policy), Preprocessing(image_size=(16, 16)))
    assert transform(noise(30, 30)).shape == (3, 16, 16)


def test_seeds_differ_wherever_their_parts_do():
    parts = [(0,), (0, 0), (1, 2), (1, 2, 0), (2, 1), ("order", 1, 2), ("augment", 1, 2), (2**40, 1), (-1,)]
    seeds = {derive_seed(*each) for each in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("order", 0, 1) == 8556750900509299915  # runs on record depend on it


@pytest.mark.parametrize("policy", ["rand-m10-n9-inc1", "rand-m0-n9"])  # the ends of both scales: no bit is kept
def test_rand_augment_at_its_strongest_posterizes_to_black(policy: str) -> None:
    settings = dataclasses.replace(NO_AUGMENT, rand_augment=policy)
    transform = pickle.loads(pickle.dumps(TrainTransform(settings, Preprocessing(image_size=(32, 32)))))
    (posterize,) = [operation for operation in transform._distort.transforms[0].ops if "Posterize" in operation.name]
    posterize.prob = 1.0
    assert posterize(noise(8, 8)).getextrema() == ((0, 0),) * 3
    for number in range(40):
        with seeded("augment", number):
            assert transform(noise(40, 40)).shape == (3, 32, 32)
