"""How far two answers are apart, as one number."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


OF_LARGEST = "of the largest output"
"""What `relative_error` counts in, as words behind the number."""


def relative_error(output: "np.ndarray", reference: "np.ndarray") -> float:
    """max|output - reference| / max|reference|; infinite if the shapes differ or a number is not finite.

    Relative to the largest output because a fresh model's logits are small: there an absolute bound passes anything.
    """
    import numpy as np

    if output.shape != reference.shape or not (np.isfinite(output).all() and np.isfinite(reference).all()):
        return math.inf
    wide = reference.astype(np.float64)
    scale = max(np.abs(wide).max(initial=0), np.finfo(np.float64).tiny)
    return float(np.abs(output.astype(np.float64) - wide).max(initial=0) / scale)
