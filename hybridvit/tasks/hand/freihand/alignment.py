"""The similarity that lays predicted points on true ones, as FreiHAND's evaluation defines it."""

from typing import NamedTuple

import numpy as np

_SMALLEST_NORM = 1e-8  # m; added to each norm, so that a cloud that is one point can be divided by its own


class Aligned(NamedTuple):
    """Predicted points in the place of the true ones."""

    points: np.ndarray  # b points 3, float64
    reflected: np.ndarray  # b, bool: whether a mirror image was needed


def aligned(points: np.ndarray, truth: np.ndarray) -> Aligned:
    """Move, turn, scale and, if that fits better, mirror `points` (b points 3) so that they lie best on `truth`.

    "Best" is the least sum of squares. Reflections are allowed because the official script allows them: it takes
    SciPy's `orthogonal_procrustes` as it is. Mind `reflected`, for a mirrored hand has no error by this measure.
    Raises ValueError for numbers that are not finite.
    """
    points, truth = points.astype(np.float64), truth.astype(np.float64)
    if not (np.isfinite(points).all() and np.isfinite(truth).all()):
        raise ValueError("Points to align have to be finite numbers. Leave out the hands that are not known.")
    given, wanted = (each.mean(1, keepdims=True) for each in (points, truth))
    given_norm, wanted_norm = (
        np.linalg.norm(each - mean, axis=(1, 2), keepdims=True) + _SMALLEST_NORM
        for each, mean in ((points, given), (truth, wanted))
    )
    one, other = (truth - wanted) / wanted_norm, (points - given) / given_norm
    left, spread, right = np.linalg.svd(one.transpose(0, 2, 1) @ other)  # b 3 points x b points 3
    turn = left @ right
    scale = spread.sum(1)[:, None, None] * wanted_norm
    return Aligned(other @ turn.transpose(0, 2, 1) * scale + wanted, np.linalg.det(turn) < 0)
