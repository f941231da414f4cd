"""What the integers cost on labelled images, in the quantity that models of a task are judged by."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hybridvit.quantity import Quantity
from hybridvit.scores import Scores

Z = 1.96  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What an int8 file is worth on `num_images` labelled images, in the unit of `quantity`."""

    quantity: Quantity  # the headline of the task
    num_images: int
    num_calibration: int  # other images, that the ranges were taken from
    before: float  # of the model as it was given, in PyTorch in fp32
    everything: float  # with every layer in integers but those kept by name or by a rule of the target
    after: float  # of the file
    drop: float  # how much worse `after` is than `before`
    drop_interval: tuple[float, float] | None  # 95 % of it; None where the quantity is no mean over images
    same_answer: float  # how often the file answers as the model does, right or wrong, in percent
    max_drop: float | None  # what was allowed
    num_layers: int
    kept: tuple[str, ...]  # layers in floating point
    worst_layers: tuple[tuple[str, float], ...]  # by what rounding each alone changes, relative to the outputs' spread
    num_conversions: int  # that the search took

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what was measured stands under the name of the quantity: top1, top1_fp32, top1_all."""
        name = self.quantity.name
        named = {"before": f"{name}_fp32", "everything": f"{name}_all", "after": name}
        return {named.get(key, key): value for key, value in asdict(self).items() if key != "quantity"}


def value_of(scores: Scores, quantity: Quantity) -> float:
    """The headline, exactly where it is a share or a mean of images: a metric may round it."""
    single = scores.per_image
    if single is None:
        return scores.values[quantity.name]
    return float(single.mean()) * (100 if single.dtype == bool else 1)


def drop_interval(quantity: Quantity, before: Scores, after: Scores) -> tuple[float, float] | None:
    """A 95 % interval of what is lost on the same images; None where the quantity is no mean over images."""
    one, other = before.per_image, after.per_image
    if one is None or other is None or len(one) < 2:
        return None
    if one.dtype == bool:
        return paired_interval(one, other)
    each = one - other if quantity.higher_is_better else other - one
    middle, half_width = float(each.mean()), Z * float(each.std(ddof=1)) / len(each) ** 0.5
    return middle - half_width, middle + half_width


def paired_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """A 95 % interval, in points, of how many more are right before than after, for the same images.

    Adjusted Wald interval of Agresti and Min (2005): half an image is added to each of the four outcomes.
    """
    lost, won = float((before & ~after).sum()) + 0.5, float((after & ~before).sum()) + 0.5
    count = len(before) + 2
    middle = (lost - won) / count
    half_width = Z * ((lost + won) / count - middle**2) ** 0.5 / count**0.5
    return 100 * (middle - half_width), 100 * (middle + half_width)
