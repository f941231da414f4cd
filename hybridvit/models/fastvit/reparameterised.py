"""FastViT's blocks that fold to one convolution (FastViT, sections 3.1 and 3.2)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.collapsed import PointBranch, collapsed_forward, subsample
from hybridvit.folding.foldable import ConvEquivalent
from hybridvit.folding.kernel import Affine, Kernel, identity_kernel

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

    def kernel(self, dtype: torch.dtype | None = None) -> Kernel:
        """Both layers as one kernel, with the norm's running statistics."""
        return Kernel.of(self.conv, dtype).then(Affine.of(self.norm, dtype))


class OverparamConv(ConvEquivalent):
    """A convolution trained as a sum of branches, each with its own BatchNorm (FastViT, section 3.2.2; MobileOne).

    kxk: the convolution itself; small: a second one with a smaller kernel; scale: a 1x1; skip: the input, where
    it has the shape of the output. All have the same stride and groups. With every extra branch off this is a
    convolution followed by BatchNorm.
    """

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
        self.training_form = training_form

    @property
    def geometry(self) -> nn.Conv2d:
        return self.kxk.conv

    def kernel(self, dtype: torch.dtype | None = None) -> Kernel:
        kernel = self.kxk.kernel(dtype)
        for branch in (self.small, self.scale):
            kernel = kernel if branch is None else kernel + branch.kernel(dtype)
        if self.skip is not None:
            kernel = kernel + identity_kernel(self.kxk.conv, dtype).then(Affine.of(self.skip, dtype))
        return kernel

    def forward_branches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        out = self.kxk(x)
        if self.small is not None:
            out = out + self.small(x)
        if self.scale is not None:
            out = out + self.scale(subsample(x, self.kxk.conv.stride[0]))
        return out if self.skip is None else out + self.skip(x)

    def forward_training(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        if self.is_collapsible() and (self.scale is not None or self.skip is not None):
            return collapsed_forward(x, self.kxk.conv, self.kxk.norm, self.point_branches())
        return self.forward_branches(x)

    def is_collapsible(self) -> bool:
        """Whether the collapsed training form applies: depthwise, and plain BatchNorms on batch statistics."""
        depthwise = self.kxk.conv.groups == self.kxk.conv.in_channels and self.small is None
        return self.training_form == "collapsed" and depthwise and all(map(_is_plain, _norms_of(self)))

    def point_branches(self) -> tuple[PointBranch, ...]:
        """The branches that see one pixel, for `collapsed_forward`."""
        scale = () if self.scale is None else (PointBranch(norm=self.scale.norm, weight=self.scale.conv.weight),)
        return scale + (() if self.skip is None else (PointBranch(norm=self.skip),))


class RepMixer(ConvEquivalent):
    """Mix each channel with its neighbours: `x + layer_scale * (mixer(x) - norm(x))` (FastViT, section 3.1, eq. 1-4).

    Every term is depthwise and linear, so at inference the block is one convolution without a residual.
    """

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
        self.layer_scale = nn.Parameter(torch.full((dim, 1, 1), layer_scale_init))

    @property
    def geometry(self) -> nn.Conv2d:
        return self.mixer.geometry

    def kernel(self, dtype: torch.dtype | None = None) -> Kernel:
        keep = identity_kernel(self.geometry, dtype)
        mixed = self.mixer.kernel(dtype) - keep.then(Affine.of(self.norm, dtype))
        return keep + mixed.scaled(self.layer_scale.flatten().to(mixed.bias))

    def forward_branches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.layer_scale * (self.mixer(x) - self.norm(x))

    def forward_training(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if self.mixer.is_collapsible() and _is_plain(self.norm):
            branches = (*self.mixer.point_branches(), PointBranch(norm=self.norm, sign=-1))
            return collapsed_forward(
                x, self.mixer.kxk.conv, self.mixer.kxk.norm, branches, layer_scale=self.layer_scale
            )
        return self.forward_branches(x)


class PositionalEncoding(ConvEquivalent):
    """`x + conv(x)`, depthwise: positions from zero padding (FastViT, section 3.2.3; Chu et al., 2021).

    It has no norm, so it computes as one convolution in training too.
    """

    def __init__(self, dim: int, *, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    @property
    def geometry(self) -> nn.Conv2d:
        return self.conv

    def kernel(self, dtype: torch.dtype | None = None) -> Kernel:
        return identity_kernel(self.conv, dtype) + Kernel.of(self.conv, dtype)

    def forward_branches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv(x)


def _norms_of(block: nn.Module) -> list[nn.Module]:
    return [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _is_plain(norm: nn.Module) -> bool:
    """A BatchNorm whose batch statistics and running statistics are the usual ones of this process."""
    if type(norm) is not nn.BatchNorm2d or not norm.training:
        return False
    return norm.track_running_stats and norm.affine and norm.momentum is not None
