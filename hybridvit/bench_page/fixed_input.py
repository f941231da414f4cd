"""An input that Python and JavaScript make alike, bit for bit, so that no image has to be sent to compare answers."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from hybridvit.export.spec import Pixels

GOLDEN = 0x9E3779B9  # parts the sequences of two seeds
SPREAD = math.sqrt(3)  # of numbers spread evenly from -SPREAD to SPREAD the variance is 1, as of normalised images


def fixed_input(shape: tuple[int, ...], *, pixels: "Pixels" = "float32", seed: int = 1) -> "np.ndarray":
    """Noise of `shape`: float32 with mean 0 and variance 1, or uint8; static/session.js makes the same.

    Each number is the last step of MurmurHash3, which mixes 32 bits, of its place and the seed.
    """
    import numpy as np

    mixed = np.arange(math.prod(shape), dtype=np.uint32) + np.uint32(seed * GOLDEN % 2**32)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    if pixels == "uint8":
        return (mixed >> np.uint32(24)).astype(np.uint8).reshape(shape)
    return ((mixed / 2**31 - 1) * SPREAD).astype(np.float32).reshape(shape)
