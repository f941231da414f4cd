"""What counts as a BatchNorm, and how to use its batch statistics without keeping them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def is_batch_norm(module: nn.Module) -> bool:
    """Whether `Affine.of` applies: BatchNorm of any kind that keeps running statistics, frozen ones too."""
    keeps_statistics = {"running_mean", "running_var"} <= module._buffers.keys()
    return keeps_statistics and not isinstance(module, nn.modules.instancenorm._InstanceNorm)


@contextmanager
def statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Within it, no BatchNorm in `module` moves its running statistics, though it uses those of the batch.

    For a second pass over the same batch. A norm with a cumulative average (momentum None) goes on with it.
    """
    norms = [
        norm
        for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.momentum is not None
    ]
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
