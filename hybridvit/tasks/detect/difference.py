"""How far two lists of detections are apart, such as a model's and those of a file that it was exported to."""

import math

import numpy as np

from hybridvit.task import Outputs
from hybridvit.tasks.detect.overlap import overlap
from hybridvit.tasks.detect.result import BOXES, LABELS, MASKS, SAME_IOU, SCORES

Row = dict[str, np.ndarray]
"""The detections of one picture."""


def difference(given: Outputs, wanted: Outputs) -> float:
    """The largest difference of a score or of a mask's probability between detections of one class and place.

    They have one place from an IoU of 0.99. What one list has and the other lacks counts with as much as its score is
    above the lowest of the other, so that the order of the last ones in a full list decides nothing. Infinite for lists
    of another form, and where a number is not finite.
    """
    for name, values in wanted.items():
        if given[name].shape != values.shape or not np.isfinite(given[name]).all():
            return math.inf
    worst = 0.0
    for place in range(len(wanted[SCORES])):
        rows = [{name: values[place] for name, values in each.items()} for each in (given, wanted)]
        worst = max(worst, _lacking(*rows), _lacking(*reversed(rows)))
    return worst


def _lacking(one: Row, other: Row) -> float:
    """How far the detections of `one` are from the nearest among those of `other`."""
    one = {name: values[one[SCORES] > 0] for name, values in one.items()}
    scores = one[SCORES].astype(np.float64)
    is_same = (overlap(one[BOXES], other[BOXES]) >= SAME_IOU) & (one[LABELS][:, None] == other[LABELS])
    apart = np.where(is_same & (other[SCORES] > 0), np.abs(scores[:, None] - other[SCORES]), np.inf)
    nearest, found = apart.argmin(1), apart.min(1, initial=np.inf)
    missing = np.isinf(found)
    worst = float(np.where(missing, scores - other[SCORES].min(), found).max(initial=0))
    if MASKS in one and (~missing).any():
        masks = one[MASKS].astype(np.float64) - other[MASKS][nearest]
        worst = max(worst, float(np.abs(masks[~missing]).max()))
    return worst
