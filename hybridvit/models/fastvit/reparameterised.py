"""FastViT's blocks that fold to one convolution (FastViT, sections 3.1 and 3.2)."""

from functools import reduce
from operator import add
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from hybridvit.folding.as_built import check_as_built, is_as_built
from hybridvit.folding.collapsed import PointBranch, collapsed_forward, subsample
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel, exact, identity_kernel
from hybridvit.models.layer_scale import new_layer_scale
from hybridvit.tracing import is_traced

TrainingForm = Literal["collapsed", "branches"]
"""How a depthwise block computes in training: all branches as one expression, or one by one. Same results."""


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
        training_form: TrainingForm = "collapsed",
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
        self.stride, self.training_form = stride, training_form

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        branches = self.readable_branches(x)
        if branches:
            return collapsed_forward(x, self.kxk.conv, self.kxk.norm, branches)
        out = self.kxk(x)
        if self.small is not None:
            out = out + self.small(x)
        if self.scale is not None:
            step = self.stride  # a slice's gradient would be channels-first in training; torch.func knows slices alone
            sliced = is_traced(x) or not self.training  # in a trace always, for the same nodes in both modes
            out = out + self.scale(x[..., ::step, ::step] if sliced else subsample(x, step))
        return out if self.skip is None else out + self.skip(x)

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

    def readable_branches(self, x: Float[Tensor, "b c h w"]) -> tuple[PointBranch, ...] | None:
        """The branches that see one pixel, where the collapsed training form applies; else None.

        That is in training, for a depthwise block without a small kernel, whose layers all are what they were built as.
        A symbolic trace shows the layers, and a batch of no images has no statistics: both take them one by one.
        """
        if is_traced(x) or x.shape[0] == 0:  # not len(x), which a graph would take for a constant
            return None
        if self.training_form != "collapsed" or self.small is not None or _has_any_global_hook():
            return None
        if not _is_readable(self.kxk) or not (self.skip is None or _is_readable_norm(self.skip)):
            return None
        scale: tuple[PointBranch, ...] = ()
        if self.scale is not None:
            if not _is_readable(self.scale) or self.scale.conv.kernel_size != (1, 1):
                return None
            scale = (PointBranch(norm=self.scale.norm, weight=self.scale.conv.weight),)
        return scale if self.skip is None else (*scale, PointBranch(norm=self.skip))


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
        training_form: TrainingForm = "collapsed",
    ) -> None:
        super().__init__()
        self.mixer = OverparamConv(
            dim,
            dim,
            kernel_size,
            groups=dim,
            scale=overparameterised,
            skip=overparameterised,
            training_form=training_form,
        )
        self.norm = nn.BatchNorm2d(dim)
        self.layer_scale = new_layer_scale(layer_scale_init, dim, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        branches = self.mixer.readable_branches(x) if is_as_built(self.mixer, OverparamConv) else None
        if branches is not None and _is_readable_norm(self.norm):
            conv, norm = self.mixer.kxk.conv, self.mixer.kxk.norm
            branches += (PointBranch(norm=self.norm, sign=-1),)
            return collapsed_forward(x, conv, norm, branches, layer_scale=self.layer_scale)
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


def _is_readable(branch: nn.Module) -> bool:
    """Whether both layers may be read instead of called: as they were built, depthwise, in training mode."""
    if not (isinstance(branch, ConvNorm) and is_as_built(branch, ConvNorm)):
        return False
    if not (is_as_built(branch.conv, nn.Conv2d) and _is_readable_norm(branch.norm)):
        return False
    conv = branch.conv
    return conv.weight.shape[1] == 1 and conv.bias is None and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


def _is_readable_norm(norm: nn.Module) -> bool:
    """Whether it is as it was built, and its batch and running statistics are the usual ones of this process."""
    if not (isinstance(norm, nn.BatchNorm2d) and is_as_built(norm, nn.BatchNorm2d) and norm.training):
        return False
    return norm.track_running_stats and norm.affine and norm.momentum is not None
