"""How far two answers to hands are apart, as one length."""

import math
from collections.abc import Mapping

import numpy as np

from hybridvit.task import Outputs

METRES: Mapping[str, float] = {"vertices": 1.0, "keypoints": 1.0, "camera": 0.02, "rotations": 0.1, "shape": 0.005}
"""What a change of 1 moves the points of a hand by, at most and about: a finger is 0.1 m long, one of the shape's
parameters makes a hand a few millimetres larger, and so does the scale of the camera, which is about 6 per metre."""


def farthest_m(given: Outputs, wanted: Outputs) -> float:
    """The most that a point moves from one answer to the other along an axis, in metres; infinite where none is known.

    Rotations, shape and camera count as what they would move.
    """
    return max(_apart(np.asarray(given[name]), np.asarray(each), METRES[name]) for name, each in wanted.items())


def _apart(given: np.ndarray, wanted: np.ndarray, metres: float) -> float:
    if given.shape != wanted.shape or not (np.isfinite(given).all() and np.isfinite(wanted).all()):
        return math.inf
    return metres * float(np.abs(given.astype(np.float64) - wanted).max(initial=0))
