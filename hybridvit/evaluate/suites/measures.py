"""What answers are worth: intervals, calibration, corruption errors. Pure functions of NumPy arrays, in float64.

Sources: Wilson 1927; Guo et al. 2017, On Calibration of Modern Neural Networks; Hendrycks & Dietterich 2019,
Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, section 4; Hendrycks et al. 2021,
Natural Adversarial Examples, appendix (root mean square calibration error).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Z_95 = 1.959964
NUM_BINS, RMS_BIN_SIZE = 15, 100
NUM_RESAMPLES = 2000
LOG2_TEMPERATURES = np.linspace(-1, 3, 33)


class Interval(NamedTuple):
    """The ends of a 95 % interval."""

    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether a difference of this interval is not resolved."""
        return self.low <= 0 <= self.high


def wilson(num_right: int, num_images: int) -> Interval:
    """The 95 % interval of a share, from 0 to 1 (Wilson's score interval)."""
    if num_images < 1 or not 0 <= num_right <= num_images:
        raise ValueError(f"{num_right} of {num_images} is no share. Give 0 to n of n images, and n at least 1.")
    share, square = num_right / num_images, Z_95**2
    centre = (share + square / (2 * num_images)) / (1 + square / num_images)
    half = Z_95 * math.sqrt(share * (1 - share) / num_images + square / (4 * num_images**2)) / (1 + square / num_images)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def bootstrap(values: np.ndarray, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Interval:
    """The 95 % percentile interval of the mean of `values` (n), one per image, by resampling images.

    What an image is worth in all its corrupted versions is one value: they are one cluster.
    """
    generator = np.random.default_rng(seed)
    values = np.asarray(values, np.float64)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(num_resamples)]
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(low), float(high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The exact two-sided p of two answerers on the same images (bool, n each) being right equally often."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total, fewer = only_first + only_second, min(only_first, only_second)
    if not total:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of the top label in 15 bins of equal width, 0 to 1; confidence 1 is in the last."""
    bins = np.minimum((NUM_BINS * confidence.astype(np.float64)).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    gaps = np.bincount(bins, confidence, NUM_BINS) - np.bincount(bins, right, NUM_BINS)
    return float(np.abs(gaps[counts > 0]).sum() / len(confidence))


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """Of each of the 15 bins of equal width that has images: mean confidence, accuracy, number of images."""
    bins = np.minimum((NUM_BINS * confidence.astype(np.float64)).astype(np.int64), NUM_BINS - 1)
    inside = [bins == number for number in range(NUM_BINS)]
    return [
        (float(confidence[each].mean()), float(right[each].mean()), int(each.sum())) for each in inside if each.any()
    ]


def equal_mass_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The same in 15 bins of equally many images, as equal as their number allows."""
    order = np.argsort(confidence, kind="stable")
    gaps = confidence.astype(np.float64)[order] - right[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, NUM_BINS)) / len(gaps))


def rms_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Root mean square calibration error in bins of 100 images by confidence; the last, smaller bin counts too."""
    order = np.argsort(confidence, kind="stable")
    gaps = confidence.astype(np.float64)[order] - right[order]
    parts = [gaps[start : start + RMS_BIN_SIZE] for start in range(0, len(gaps), RMS_BIN_SIZE)]
    return math.sqrt(sum(len(part) * part.mean() ** 2 for part in parts) / len(gaps))


def best_temperature(losses: np.ndarray) -> float:
    """The temperature of the least loss, of losses at 2 to the power of each of LOG2_TEMPERATURES.

    A parabola through the least and its neighbours tells the place between them, to half a percent. A least at an end
    is that end.
    """
    least = int(np.argmin(losses))
    if 0 < least < len(losses) - 1:
        before, here, after = losses[least - 1 : least + 2]
        bend = before - 2 * here + after
        offset = 0.5 * (before - after) / bend if bend > 0 else 0.0
        step = LOG2_TEMPERATURES[1] - LOG2_TEMPERATURES[0]
        return float(2 ** (LOG2_TEMPERATURES[least] + offset * step))
    return float(2 ** LOG2_TEMPERATURES[least])


def corruption_error(errors: Sequence[float], baseline: Sequence[float]) -> float:
    """CE in %: the errors over the severities, summed, over those of the baseline (AlexNet)."""
    return 100 * math.fsum(errors) / math.fsum(baseline)


def relative_corruption_error(
    errors: Sequence[float], clean: float, baseline: Sequence[float], baseline_clean: float
) -> float:
    """Relative CE in %: what corruption adds to the clean error, over what it adds to that of the baseline."""
    added = math.fsum(error - clean for error in errors)
    return 100 * added / math.fsum(error - baseline_clean for error in baseline)


def mean_corruption_error(errors: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]]) -> float:
    """mCE in %: the mean CE over the corruptions of the baseline. Raises ValueError if one of them has no errors."""
    missing = [name for name in baseline if name not in errors]
    if missing:
        raise ValueError(f"mCE is over all {len(baseline)} corruptions, but {', '.join(missing)} are missing.")
    return math.fsum(corruption_error(errors[name], values) for name, values in baseline.items()) / len(baseline)


def corruption_values(wrong: Mapping[str, np.ndarray], baseline: Mapping[str, Sequence[float]]) -> np.ndarray:
    """What each image adds to mCE (n): their mean is mCE. `wrong` is bool, severities × n, by corruption.

    mCE is linear in the errors, so a bootstrap of this mean over images is one of mCE.
    """
    parts = [100 * wrong[name].sum(0, dtype=np.float64) / math.fsum(values) for name, values in baseline.items()]
    return np.sum(parts, 0) / len(baseline)
