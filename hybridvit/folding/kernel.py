"""The algebra of folding: a convolution together with its bias, as a value.

Every exact fold of this library is a sum of convolutions, a BatchNorm before or after one, or a gain on its
output. The same value serves `fold`, which computes in float64 and casts, and the blocks' own eval mode.
"""

import math
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import FoldError
from hybridvit.folding.packed import PackedLinear

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Affine:
    """y = gain * x + shift per channel: what a BatchNorm with fixed statistics does."""

    gain: Float[Tensor, "c"]
    shift: Float[Tensor, "c"]

    @classmethod
    def of(cls, norm: nn.Module, dtype: torch.dtype | None = None) -> "Affine":
        """The map of a BatchNorm in eval mode: any kind that keeps running statistics, frozen ones too."""
        mean, variance = (exact(norm.get_buffer(name), dtype) for name in ("running_mean", "running_var"))
        gain, shift = torch.rsqrt(variance + cast(float, norm.eps)), torch.zeros_like(mean)
        if norm.weight is not None:
            weight, bias = cast(Tensor, norm.weight), cast(Tensor, norm.bias)  # buffers in a frozen norm
            gain, shift = gain * exact(weight, dtype), exact(bias, dtype)
        return cls(gain, shift - mean * gain)

    @classmethod
    def of_layer_norm(cls, norm: nn.LayerNorm, dtype: torch.dtype | None = None) -> "Affine":
        """The affine part of a LayerNorm, which follows the normalisation."""
        return cls(exact(norm.weight, dtype), exact(norm.bias, dtype))


@dataclass(frozen=True)
class Kernel:
    """A convolution (weight, bias) without its stride and padding, which all summands must share."""

    weight: Float[Tensor, "out in_per_group kh kw"]
    bias: Float[Tensor, "out"]

    @classmethod
    def of(cls, layer: nn.Conv2d | nn.Linear, dtype: torch.dtype | None = None) -> "Kernel":
        """The kernel of a layer; a linear layer is a 1x1 convolution."""
        weight = exact(layer.weight, dtype)
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        return cls(weight, weight.new_zeros(weight.shape[0]) if layer.bias is None else exact(layer.bias, dtype))

    def __add__(self, other: "Kernel") -> "Kernel":
        size = max(self.weight.shape[-1], other.weight.shape[-1])
        left, right = self.padded(size), other.padded(size)
        return Kernel(left.weight + right.weight, left.bias + right.bias)

    def __sub__(self, other: "Kernel") -> "Kernel":
        return self + Kernel(-other.weight, -other.bias)

    def scaled(self, gain: Float[Tensor, "out"]) -> "Kernel":
        """Each output channel times `gain`; in the wider of the two dtypes, on the device of `gain`."""
        weight, bias = self.weight.to(gain.device), self.bias.to(gain.device)
        return Kernel(weight * gain[:, None, None, None], bias * gain)

    def then(self, affine: Affine) -> "Kernel":
        """Followed by a BatchNorm."""
        scaled = self.scaled(affine.gain)
        return Kernel(scaled.weight, scaled.bias + affine.shift)

    def after(self, affine: Affine) -> "Kernel":
        """Preceded by a BatchNorm: for 1x1 kernels alone, since the zeros of a padding would not pass through it."""
        assert self.weight.shape[-2:] == (1, 1)
        weight, bias = self.weight.to(affine.gain), self.bias.to(affine.gain)
        return Kernel(weight * affine.gain[:, None, None], bias + weight[:, :, 0, 0] @ affine.shift)

    def padded(self, size: int) -> "Kernel":
        """The same convolution as a `size` x `size` kernel with zeros around; both sizes odd."""
        border = (size - self.weight.shape[-1]) // 2
        return self if border == 0 else Kernel(F.pad(self.weight, [border] * 4), self.bias)

    def cast(self, like: Tensor) -> "Kernel":
        """A copy, rounded to the dtype of `like`, on its device.

        Raises:
            FoldError: if a value is not finite there.
        """
        for name, values in (("weight", self.weight), ("bias", self.bias)):
            if values.is_meta:
                continue
            low, high = values.detach().aminmax()
            largest = max(-low.item(), high.item())
            if not math.isfinite(largest):
                raise FoldError(f"its folded {name} is not finite, so a weight or a BatchNorm statistic is broken.")
            if largest > torch.finfo(like.dtype).max:
                raise FoldError(
                    f"its folded {name} reaches {largest:.4g}, more than {like.dtype} can hold "
                    f"({torch.finfo(like.dtype).max:.5g}). Fold in float32 or bfloat16 instead."
                )
        weight, bias = (values.to(like.device, like.dtype, copy=True) for values in (self.weight, self.bias))
        return Kernel(weight, bias)

    def as_conv(self, like: nn.Conv2d) -> nn.Conv2d:
        """A frozen layer with this kernel and the stride, groups, dtype and device of `like`, padded to keep the size.

        Raises:
            FoldError: if a value does not fit the dtype.
        """
        size = self.weight.shape[-1]
        conv = nn.Conv2d(
            like.in_channels,
            like.out_channels,
            size,
            stride=like.stride[0],
            padding=size // 2,
            groups=like.groups,
            device="meta",
        )
        kernel = self.cast(like.weight)
        return _frozen(conv, kernel.weight, kernel.bias)

    def as_linear(self, like: nn.Linear) -> nn.Linear:
        """A frozen linear layer with this 1x1 kernel; see `as_conv`."""
        kernel = self.cast(like.weight)
        linear = PackedLinear(like.in_features, like.out_features, device="meta")
        return _frozen(linear, kernel.weight[:, :, 0, 0], kernel.bias)


def identity_kernel(like: nn.Conv2d, dtype: torch.dtype | None = None) -> Kernel:
    """The 1x1 kernel, grouped as `like`, whose output is its input; `like` has as many outputs as inputs."""
    per_group = like.in_channels // like.groups
    block = torch.eye(per_group, dtype=dtype or like.weight.dtype, device=exact(like.weight, dtype).device)
    weight = block.repeat(like.groups, 1)[:, :, None, None]  # (groups per_group) per_group 1 1
    return Kernel(weight, weight.new_zeros(like.out_channels))


def exact(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor` in the dtype of a computation; float64 on MPS, which has none, moves to the CPU."""
    if dtype is torch.float64 and tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor if dtype is None else tensor.to(dtype)


def _frozen(layer: Layer, weight: Tensor, bias: Tensor) -> Layer:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
