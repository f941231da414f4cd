"""Measures of the suites against published pairs and independent computations."""

import hashlib

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn.calibration import calibration_curve

from hybridvit.evaluate.suites import labels
from hybridvit.evaluate.suites.measures import (
    LOG2_TEMPERATURES,
    best_temperature,
    bootstrap,
    calibration_error,
    corruption_error,
    corruption_values,
    equal_mass_calibration_error,
    mcnemar,
    mean_corruption_error,
    relative_corruption_error,
    rms_calibration_error,
    wilson,
)
from hybridvit.peers.robustness import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, published

RESNET_50 = {  # top-1 over the severities and the CE that was published with it
    "gaussian_noise": (29.29, 79.77), "impulse_noise": (23.81, 82.58), "defocus_blur": (38.75, 74.71),
    "glass_blur": (26.79, 88.61), "frost": (38.14, 74.84), "fog": (45.83, 66.11), "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43), "elastic_transform": (45.25, 84.75),
}  # fmt: skip


def test_alexnet_against_itself_is_100():
    assert mean_corruption_error(ALEXNET_ERRORS, ALEXNET_ERRORS) == pytest.approx(100, abs=1e-12)
    for errors in ALEXNET_ERRORS.values():
        relative = relative_corruption_error(errors, ALEXNET_CLEAN_ERROR, errors, ALEXNET_CLEAN_ERROR)
        assert relative == pytest.approx(100, abs=1e-12)
    assert 100 * np.mean([*ALEXNET_ERRORS.values()]) == pytest.approx(78.90, abs=0.005)


@pytest.mark.parametrize("corruption", RESNET_50)
def test_corruption_errors_of_a_published_resnet_50_come_out(corruption):
    top1, expected = RESNET_50[corruption]
    error = corruption_error([1 - top1 / 100] * 5, ALEXNET_ERRORS[corruption])
    assert error == pytest.approx(expected, abs=0.011)


def test_mean_of_the_papers_rounded_corruption_errors():
    rounded = dict(zip(ALEXNET_ERRORS, (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77), strict=True))
    errors = {name: [value / 100 * error for error in ALEXNET_ERRORS[name]] for name, value in rounded.items()}
    assert mean_corruption_error(errors, ALEXNET_ERRORS) == pytest.approx(76.87, abs=0.005)


def test_mean_corruption_error_of_a_part_is_refused():
    with pytest.raises(ValueError, match="all 15 corruptions, but jpeg_compression are missing"):
        mean_corruption_error(dict(list(ALEXNET_ERRORS.items())[:-1]), ALEXNET_ERRORS)


def test_values_of_images_average_to_mean_corruption_error():
    generator = np.random.default_rng(0)
    wrong = {name: generator.random((5, 40)) < 0.6 for name in ALEXNET_ERRORS}
    errors = {name: each.mean(1).tolist() for name, each in wrong.items()}
    expected = mean_corruption_error(errors, ALEXNET_ERRORS)
    assert corruption_values(wrong, ALEXNET_ERRORS).mean() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(40300, 50000, 80.25, 80.94), (1290, 7500, 16.36, 18.07), (360, 360, 98.94, 100)],
)
def test_wilson_intervals_of_known_shares(right, total, low, high):
    found = wilson(right, total)
    assert (100 * found.low, 100 * found.high) == pytest.approx((low, high), abs=0.005)
    exact = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert found == pytest.approx((exact.low, exact.high), abs=1e-7)


@pytest.mark.parametrize(("times", "resamples"), [(150, 200), pytest.param(1000, 500, marks=pytest.mark.nightly)])
def test_intervals_hold_the_truth_in_95_of_100_simulations(times, resamples):
    generator, truth, size = np.random.default_rng(1), 0.7, 300
    samples = generator.random((times, size)) < truth
    for interval in (lambda each: wilson(each.sum(), size), lambda each: bootstrap(each, num_resamples=resamples)):
        covered = np.mean([low <= truth <= high for low, high in map(interval, samples)])
        assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / times) ** 0.5 + 0.01


def test_mcnemar_equals_the_binomial_test():
    generator = np.random.default_rng(2)
    first, second = generator.random(400) < 0.8, generator.random(400) < 0.75
    pairs = (int((first & ~second).sum()), int((second & ~first).sum()))
    assert mcnemar(first, second) == pytest.approx(stats.binomtest(pairs[0], sum(pairs)).pvalue, rel=1e-9)
    assert mcnemar(first, first) == 1


def test_calibration_errors_equal_independent_computations():
    generator = np.random.default_rng(3)
    confidence = generator.random(1037)
    confidence[:20] = 1.0
    right = generator.random(1037) < confidence**2
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    expected = (counts / counts.sum() * np.abs(accuracy - mean)).sum()
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-12)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, 15)
    equal = sum(len(part) / 1037 * abs(confidence[part].mean() - right[part].mean()) for part in parts)
    assert equal_mass_calibration_error(confidence, right) == pytest.approx(equal, abs=1e-12)
    hundreds = [order[start : start + 100] for start in range(0, 1037, 100)]
    square = sum(len(part) / 1037 * (confidence[part].mean() - right[part].mean()) ** 2 for part in hundreds)
    assert rms_calibration_error(confidence, right) == pytest.approx(square**0.5, abs=1e-12)


def test_temperature_is_that_of_the_least_loss():
    generator = np.random.default_rng(4)
    logits = generator.normal(size=(500, 10)) * 2
    targets = np.array([generator.choice(10, p=special.softmax(row / 1.7)) for row in logits])

    def loss(temperature: float) -> float:
        return -special.log_softmax(logits / temperature, 1)[np.arange(500), targets].mean()

    exact = optimize.minimize_scalar(loss, bounds=(0.3, 6), method="bounded").x
    assert best_temperature(np.array([loss(2**power) for power in LOG2_TEMPERATURES])) == pytest.approx(exact, rel=5e-3)


def test_class_lists_are_those_that_the_suites_were_written_for():
    for name, digest in (
        ("imagenet_a_indices.txt", "e81223a35add6e78"),
        ("imagenet_r_indices.txt", "91e09d2ff0a00210"),
        ("imagenet_real_labels.json", "d83e9bff374c631a"),
    ):
        assert hashlib.sha256(labels.list_file(name).read_bytes()).hexdigest().startswith(digest), name
    assert len(labels.synsets()) == 1000
    assert list(labels.synsets()) == sorted(labels.synsets())
    for subset in ("a", "r"):
        named = tuple(labels.synsets()[index] for index in labels.subset_indices(subset))
        assert named == labels.subset_synsets(subset)
    assert len({*labels.subset_synsets("a")} & {*labels.subset_synsets("r")}) == 86
    real = labels.real_labels()
    assert (len(real), sum(not each for each in real), sum(len(each) == 1 for each in real)) == (50000, 3163, 39394)


def test_published_values_are_found_by_model_and_suite():
    assert dict(published("fastvit_sa12", "a")) == {"FastViT Table 7": 17.2, "timm": 16.31, "timm, distilled": 21.31}
    assert published("fastvit_debug", "a") == ()
