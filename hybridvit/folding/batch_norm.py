"""What counts as a BatchNorm."""

from torch import nn


def is_batch_norm(module: nn.Module) -> bool:
    """Whether `Affine.of` applies: BatchNorm of any kind that keeps running statistics, frozen ones too."""
    keeps_statistics = {"running_mean", "running_var"} <= module._buffers.keys()
    return keeps_statistics and not isinstance(module, nn.modules.instancenorm._InstanceNorm)
