"""How much accuracy the integers cost, on labelled images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

Z = 1.96  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What an int8 file gets right. Accuracies in percent, drops in points, of `num_images` labelled images."""

    num_images: int
    num_calibration: int  # other images, that the ranges were taken from
    top1_fp32: float  # of the model as it was given, in PyTorch
    top1_all: float  # with every layer in integers but those kept by name or by a rule of the target
    top1: float  # of the file
    drop: float  # top1_fp32 - top1
    drop_interval: tuple[float, float]  # 95 % of it
    same_answer: float  # how often the file answers as the model does, right or wrong, in percent
    max_drop: float | None  # what was allowed
    num_layers: int
    kept: tuple[str, ...]  # layers in floating point
    worst_layers: tuple[tuple[str, float], ...]  # by what rounding each alone changes, relative to the outputs' spread
    num_conversions: int  # that the search took

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def percent(right: np.ndarray) -> float:
    """The share of true values."""
    return 100 * float(right.mean())


def paired_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """A 95 % interval, in points, of how many more are right before than after, for the same images.

    Adjusted Wald interval of Agresti and Min (2005): half an image is added to each of the four outcomes.
    """
    lost, won = float((before & ~after).sum()) + 0.5, float((after & ~before).sum()) + 0.5
    count = len(before) + 2
    middle = (lost - won) / count
    half_width = Z * ((lost + won) / count - middle**2) ** 0.5 / count**0.5
    return 100 * (middle - half_width), 100 * (middle + half_width)


def first_answers(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The most probable class of each image."""
    return outputs["indices"][:, 0] if "indices" in outputs else outputs["logits"].argmax(1)


def right_answers(answers: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Which of the answered classes are those of the labels."""
    return answers == np.asarray(labels)
