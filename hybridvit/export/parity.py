"""Compare an exported file with PyTorch on the same input."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from hybridvit.export.runners import Runner

LIMIT_FP32 = 1e-5  # relative to the largest output; a correct fp32 export measures about 1e-6
BATCH_SIZES = (1, 2, 5)  # more than one, and not all even: a batch size baked into the graph cannot hide


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported file is from PyTorch."""

    max_error: float  # largest difference / largest output of a batch, over all of them
    limit: float
    batch_sizes: tuple[int, ...]
    image_sizes: tuple[tuple[int, int], ...]  # height, width of the random images
    real_images: int
    same_top1: int  # of the real images, how many have the same first answer

    @property
    def passed(self) -> bool:
        """Within the limit, and NaN is not."""
        return self.max_error <= self.limit

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def relative_error(output: np.ndarray, reference: np.ndarray) -> float:
    """max|output - reference| / max|reference|; infinite if the shapes differ or a number is not finite.

    Relative to the largest output because a fresh model's logits are small: there an absolute bound passes anything.
    """
    if output.shape != reference.shape or not (np.isfinite(output).all() and np.isfinite(reference).all()):
        return math.inf
    wide = reference.astype(np.float64)
    scale = max(np.abs(wide).max(), np.finfo(np.float64).tiny)
    return float(np.abs(output.astype(np.float64) - wide).max() / scale)


def compare(
    runner: Runner,
    reference: Runner,
    *,
    channels: int,
    image_sizes: Sequence[tuple[int, int]],
    images: np.ndarray | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    limit: float = LIMIT_FP32,
    seed: int = 0,
) -> Parity:
    """Run both on random batches of every size (height, width), and on `images` (n, c, h, w)."""
    generator = np.random.default_rng(seed)
    worst = 0.0
    for num, image_size in itertools.product(batch_sizes, image_sizes):
        batch = generator.standard_normal((num, channels, *image_size), dtype=np.float32)
        worst = max(worst, relative_error(runner(batch), reference(batch)))
    same_top1, num_images = 0, 0 if images is None else len(images)
    for start in range(0, num_images, max(batch_sizes)):
        assert images is not None
        batch = images[start : start + max(batch_sizes)]
        output, expected = runner(batch), reference(batch)
        worst = max(worst, relative_error(output, expected))
        same_top1 += int((output.argmax(1) == expected.argmax(1)).sum())
    return Parity(
        max_error=worst,
        limit=limit,
        batch_sizes=tuple(batch_sizes),
        image_sizes=tuple(image_sizes),
        real_images=num_images,
        same_top1=same_top1,
    )
