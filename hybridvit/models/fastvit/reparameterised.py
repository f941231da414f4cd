"""FastViT's blocks that fold to one convolution (FastViT, sections 3.1 and 3.2)."""

from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.as_built import check_as_built
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel, exact, identity_kernel
from hybridvit.models.layer_scale import new_layer_scale
from hybridvit.tracing import is_traced


class ConvNorm(nn.Module):
    """A convolution without bias, then BatchNorm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        return self.norm(self.conv(x))

    def kernel(self) -> Kernel:
        """Both layers as one kernel, with the norm's running statistics."""
        return Kernel.of(self.conv).then(Affine.of(self.norm))


class OverparamConv(Foldable):
    """A convolution trained as a sum of branches, each with its own BatchNorm (FastViT, section 3.2.2; MobileOne).

    kxk: the convolution itself; small: a second one with a smaller kernel; scale: a 1x1; skip: the input, where
    it has the shape of the output. All have the same stride and groups. With every extra branch off this is a
    convolution followed by BatchNorm.
    """

    in_released_form = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        small_kernel: int | None = None,
        scale: bool = False,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.kxk = ConvNorm(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
        self.small = (
            None
            if small_kernel is None
            else ConvNorm(in_channels, out_channels, small_kernel, stride=stride, groups=groups)
        )
        # its stride is taken by slicing x: the same function, and torch 2.15 crashes in the backward of a dense
        # 1x1 stride-2 convolution with 3 input channels in channels-last
        self.scale = ConvNorm(in_channels, out_channels, 1, groups=groups) if scale and kernel_size > 1 else None
        keeps_shape = in_channels == out_channels and stride == 1
        self.skip = nn.BatchNorm2d(out_channels) if skip and keeps_shape else None
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        out = self.kxk(x)
        if self.small is not None:
            out = out + self.small(x)
        if self.scale is not None:
            out = out + self.scale(x if self.stride == 1 else self._strided(x))
        return out if self.skip is None else out + self.skip(x)

    def _strided(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        """Every `stride`-th pixel of each axis."""
        if is_traced(x) or not self.training:  # in a trace always, for the same nodes in both modes
            return x[..., :: self.stride, :: self.stride]  # all that torch.func knows
        return _Subsample.apply(x, self.stride)

    def kernel(self) -> Kernel:
        """The sum of the branches."""
        branches = [branch for branch in (self.kxk, self.small, self.scale) if branch is not None]
        for branch in branches:
            check_as_built(branch, ConvNorm)
        kernels = [branch.kernel() for branch in branches]
        if self.skip is not None:
            kernels.append(identity_kernel(self.kxk.conv).then(Affine.of(self.skip)))
        return reduce(add, kernels)

    def folded(self) -> nn.Conv2d:
        return self.kernel().as_conv(self.kxk.conv)


class RepMixer(Foldable):
    """Mix each channel with its neighbours: `x + layer_scale * (mixer(x) - norm(x))` (FastViT, section 3.1, eq. 1-4).

    Every term is depthwise and linear, so at inference the block is one convolution without a residual.
    """

    in_released_form = True

    def __init__(
        self,
        dim: int,
        *,
        kernel_size: int = 3,
        overparameterised: bool = True,
        layer_scale_init: float = 1e-5,
    ) -> None:
        super().__init__()
        self.mixer = OverparamConv(
            dim,
            dim,
            kernel_size,
            groups=dim,
            scale=overparameterised,
            skip=overparameterised,
        )
        self.norm = nn.BatchNorm2d(dim)
        self.layer_scale = new_layer_scale(layer_scale_init, dim, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.layer_scale * (self.mixer(x) - self.norm(x))

    def kernel(self) -> Kernel:
        """The whole block, its input included."""
        check_as_built(self.mixer, OverparamConv)
        mixed, keep = self.mixer.kernel(), identity_kernel(self.mixer.kxk.conv)
        mixed = mixed - keep.then(Affine.of(self.norm))
        return keep + mixed.scaled(exact(self.layer_scale.flatten()))

    def folded(self) -> nn.Conv2d:
        return self.kernel().as_conv(self.mixer.kxk.conv)


class PositionalEncoding(Foldable):
    """`x + conv(x)`, depthwise: positions from zero padding (FastViT, section 3.2.3; Chu et al., 2021)."""

    in_released_form = True

    def __init__(self, dim: int, *, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv(x)

    def kernel(self) -> Kernel:
        """The convolution and its input."""
        return Kernel.of(self.conv) + identity_kernel(self.conv)

    def folded(self) -> nn.Conv2d:
        return self.kernel().as_conv(self.conv)


class _Subsample(torch.autograd.Function):
    """Every `stride`-th pixel of each axis, with a gradient in the layout of the input.

    The gradient of slicing is channels-first always, and each operation before it would then convert.
    """

    @staticmethod
    def forward(ctx, x, stride):
        ctx.shape, ctx.stride, ctx.layout = x.shape, stride, _layout(x)
        return x[..., ::stride, ::stride].contiguous(memory_format=ctx.layout)

    @staticmethod
    def backward(ctx, grad):
        full = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device).contiguous(memory_format=ctx.layout)
        full[..., :: ctx.stride, :: ctx.stride] = grad
        return full, None


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
