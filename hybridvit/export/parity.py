"""Compare an exported file with PyTorch on the same input."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

LIMIT_FP32 = 1e-5  # relative to the largest output; a correct fp32 export measures about 1e-6
BATCH_SIZES = (1, 2, 5)  # more than one, and not all even: a batch size baked into the graph cannot hide


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported file is from PyTorch."""

    max_error: float  # largest difference / largest output, over all batches
    limit: float
    batch_sizes: tuple[int, ...]
    real_images: int
    same_top1: int  # of the real images, how many have the same first answer

    @property
    def passed(self) -> bool:
        """Within the limit, and NaN is not."""
        return self.max_error <= self.limit

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def relative_error(output: Tensor, reference: Tensor) -> float:
    """max|output - reference| / max|reference|; infinite if the shapes differ or a number is not finite.

    Relative to the largest output because a fresh model's logits are small: there an absolute bound passes anything.
    """
    if output.shape != reference.shape or not (output.isfinite().all() and reference.isfinite().all()):
        return float("inf")
    scale = reference.double().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return ((output.double() - reference.double()).abs().max() / scale).item()


def compare(
    run: Callable[[Tensor], Tensor],
    reference: Callable[[Tensor], Tensor],
    *,
    image_shape: tuple[int, int, int],
    images: Tensor | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    limit: float = LIMIT_FP32,
    seed: int = 0,
) -> Parity:
    """Run both on random batches of `image_shape` (channels, height, width) and on `images` (n, c, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for size in batch_sizes:
        batch = torch.randn(size, *image_shape, generator=generator)
        worst = max(worst, relative_error(run(batch), reference(batch)))
    same_top1 = 0
    for batch in () if images is None else images.split(max(batch_sizes)):
        output, expected = run(batch), reference(batch)
        worst = max(worst, relative_error(output, expected))
        same_top1 += int((output.argmax(1) == expected.argmax(1)).sum())
    return Parity(
        max_error=worst,
        limit=limit,
        batch_sizes=tuple(batch_sizes),
        real_images=0 if images is None else len(images),
        same_top1=same_top1,
    )
