"""The algebra of folding: a convolution together with its bias, as a value.

Every exact fold of this library is a sum of convolutions, a BatchNorm before or after one, or a gain on its output. All
is computed in float64, and rounded once, by `cast`.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import FoldError
from hybridvit.folding.as_built import NotAsBuilt, check_as_built
from hybridvit.folding.batch_norm import batch_norm_kinds
from hybridvit.folding.packed import PackedLinear


@dataclass(frozen=True)
class Affine:
    """y = gain * x + shift per channel: what a BatchNorm with fixed statistics does."""

    gain: Float[Tensor, "c"]
    shift: Float[Tensor, "c"]

    @classmethod
    def of(cls, norm: nn.Module) -> "Affine":
        """The map of a BatchNorm in eval mode: any kind that keeps running statistics, frozen ones too.

        Raises:
            NotAsBuilt: if it is none of these.
        """
        check_as_built(norm, *batch_norm_kinds())
        if norm.running_mean is None:
            raise NotAsBuilt(norm, "keeps no running statistics, so it has no fixed gain and shift.")
        mean, variance = (exact(norm.get_buffer(name)) for name in ("running_mean", "running_var"))
        gain, shift = torch.rsqrt(variance + cast(float, norm.eps)), torch.zeros_like(mean)
        if norm.weight is not None:
            weight, bias = cast(Tensor, norm.weight), cast(Tensor, norm.bias)  # buffers in a frozen norm
            gain, shift = gain * exact(weight), exact(bias)
        return cls(gain, shift - mean * gain)

    @classmethod
    def of_layer_norm(cls, norm: nn.Module, kind: type[nn.LayerNorm] = nn.LayerNorm) -> "Affine":
        """The affine part of a LayerNorm, which follows the normalisation; one of class `kind` exactly.

        Raises:
            NotAsBuilt: if it is another, or has no affine part.
        """
        check_as_built(norm, kind)
        assert isinstance(norm, nn.LayerNorm)
        if norm.weight is None or norm.bias is None:
            raise NotAsBuilt(norm, "has no weight or no bias, which a fold reads. Put one with both there.")
        return cls(exact(norm.weight), exact(norm.bias))


@dataclass(frozen=True)
class Kernel:
    """A convolution (weight, bias) without its stride and padding, which all summands must share."""

    weight: Float[Tensor, "out in_per_group kh kw"]
    bias: Float[Tensor, "out"]

    @classmethod
    def of(cls, layer: nn.Module) -> "Kernel":
        """The kernel of a layer; a linear layer is a 1x1 convolution.

        Raises:
            NotAsBuilt: if the layer is neither exactly, or is dilated or padded with something else than zeros.
        """
        # what is folded may be rewritten for a runtime, and so folded once more
        check_as_built(layer, nn.Conv2d, PackedLinear if type(layer) is PackedLinear else nn.Linear)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if isinstance(layer, nn.Conv2d) and (layer.dilation != (1, 1) or layer.padding_mode != "zeros"):
            raise NotAsBuilt(layer, "is dilated, or padded with something else than zeros, which no fold here knows.")
        weight = exact(layer.weight)
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        return cls(weight, weight.new_zeros(weight.shape[0]) if layer.bias is None else exact(layer.bias))

    def __add__(self, other: "Kernel") -> "Kernel":
        size = max(self.weight.shape[-1], other.weight.shape[-1])
        left, right = self.padded(size), other.padded(size)
        if left.weight.shape != right.weight.shape:
            raise FoldError(
                f"kernels of {tuple(self.weight.shape)} and {tuple(other.weight.shape)} have no sum: its branches must "
                "have the same channels and groups."
            )
        return Kernel(left.weight + right.weight, left.bias + right.bias)

    def __sub__(self, other: "Kernel") -> "Kernel":
        return self + Kernel(-other.weight, -other.bias)

    def scaled(self, gain: Float[Tensor, "out"]) -> "Kernel":
        """Each output channel times `gain`."""
        return Kernel(self.weight * gain[:, None, None, None], self.bias * gain)

    def then(self, affine: Affine) -> "Kernel":
        """Followed by a BatchNorm."""
        scaled = self.scaled(affine.gain)
        return Kernel(scaled.weight, scaled.bias + affine.shift)

    def after(self, affine: Affine) -> "Kernel":
        """Preceded by a BatchNorm: for 1x1 kernels alone, since the zeros of a padding would not pass through it."""
        assert self.weight.shape[-2:] == (1, 1)
        bias = self.bias + self.weight[:, :, 0, 0] @ affine.shift
        return Kernel(self.weight * affine.gain[:, None, None], bias)

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
        weight, bias = (
            values.to(like.device, like.dtype, copy=True, memory_format=torch.contiguous_format)
            for values in (self.weight, self.bias)
        )
        return Kernel(weight, bias)

    def as_conv(self, like: nn.Module) -> nn.Conv2d:
        """A frozen layer with this kernel and the stride, groups, dtype and device of `like`, a convolution.

        It is padded to keep the size.

        Raises:
            FoldError: if a value does not fit the dtype.
            NotAsBuilt: if `like` is not padded to keep the size.
        """
        assert isinstance(like, nn.Conv2d)
        size = self.weight.shape[-1]
        if like.padding != (like.kernel_size[0] // 2, like.kernel_size[1] // 2):
            raise NotAsBuilt(like, f"has padding {like.padding}, but only half of its kernel can be folded.")
        kernel = self.cast(like.weight)
        conv = conv_owning(like, kernel.weight, kernel.bias)
        conv.padding = (size // 2, size // 2)
        return conv

    def as_linear(self, like: nn.Module) -> nn.Linear:
        """A frozen linear layer with this 1x1 kernel and the dtype and device of `like`; see `as_conv`."""
        kernel = self.cast(like.get_parameter("weight"))
        return PackedLinear(kernel.weight[:, :, 0, 0], kernel.bias)


def identity_kernel(like: nn.Conv2d) -> Kernel:
    """The 1x1 kernel, grouped as `like`, whose output is its input; `like` has as many outputs as inputs."""
    per_group = like.in_channels // like.groups
    block = exact(torch.eye(per_group, device=like.weight.device))
    weight = block.repeat(like.groups, 1)[:, :, None, None]  # (groups per_group) per_group 1 1
    return Kernel(weight, weight.new_zeros(like.out_channels))


def conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A frozen convolution with the stride, padding and groups of `conv`; `weight` says channels and kernel.

    It gets copies of both tensors.
    """
    copied = weight.detach().clone(memory_format=torch.contiguous_format)
    return conv_owning(conv, copied, None if bias is None else bias.detach().clone())


def conv_owning(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """`conv_like` without the copies: both tensors become the layer's own."""
    like: nn.Conv2d = _Uninitialised(
        weight.shape[1] * conv.groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        (conv.stride[0], conv.stride[1]),
        groups=conv.groups,
        bias=bias is not None,
        device="meta",
    )
    like.__class__ = nn.Conv2d
    like.padding = conv.padding
    like.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        like.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return like.eval()


class _Uninitialised(nn.Conv2d):
    """A convolution as it is before weights are drawn, which on the meta device takes longer than all else here."""

    def reset_parameters(self) -> None:
        pass


def exact(tensor: Tensor) -> Tensor:
    """`tensor` in float64; from MPS, which has none, on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)
