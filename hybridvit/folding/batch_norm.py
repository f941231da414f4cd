"""What counts as a BatchNorm, and how to use its batch statistics without keeping them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybridvit.errors import UsageError


def batch_norm_kinds() -> tuple[type[nn.Module], ...]:
    """The classes that are a gain and a shift per channel in eval mode; torchvision's frozen one if it is loaded."""
    torchvision = sys.modules.get("torchvision.ops.misc")
    frozen = (torchvision.FrozenBatchNorm2d,) if torchvision else ()
    return (nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm, *frozen)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether `module` is exactly one of `batch_norm_kinds`."""
    return type(module) in batch_norm_kinds()


def uses_batch_statistics(block: nn.Module) -> bool:
    """Whether a BatchNorm in `block` makes its output depend on the rest of the batch."""
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for module in block.modules()
    )


def check_batch(batch: int, size: Sequence[int], stride: int) -> None:
    """Refuse a training batch that leaves BatchNorm one value per channel after a stride.

    Raises:
        UsageError: for one image of at most `stride` pixels a side.
    """
    if batch == 1 and max(size) <= stride:
        raise UsageError(
            f"A training batch of one image of {size[0]}x{size[1]} pixels leaves one value per channel after a stride "
            f"of {stride}, but BatchNorm needs at least two for a variance. Use a batch of 2 or more, a larger image, "
            "or model.eval() to freeze the statistics."
        )


@contextmanager
def statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Within it, no BatchNorm in `module` moves its running statistics, though it uses those of the batch.

    For a second pass over the same batch. A norm with a cumulative average (momentum None) goes on with it.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.momentum is not None]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
