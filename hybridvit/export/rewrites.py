"""Exact rewrites of a folded model for runtimes that are slow at one of its layers.

Each takes a folded model and returns a new one that computes the same sums, some in another order; an exporter lists
those that its runtime gains from (`Exporter.rewrites`). Reasons and measured gains: docs/lab-log.md, "Rewrites".
"""

import copy
from collections.abc import Iterator
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.models.backbone import Backbone
from hybridvit.models.fastvit.model import ConvUnit, Downsample, ExpandConv, SqueezeExcite
from hybridvit.models.head import ClassifierHead

MAX_TAPS = 25  # of the largest kernel that XNNPACK has a depthwise convolution for


def doubling_as_depthwise(model: nn.Module) -> nn.Module:
    """FastViT's convolutions with several outputs per input channel, as that many depthwise ones side by side.

    Runtimes have fast kernels for one output per channel alone; for two, ONNX Runtime leaves its blocked layout and
    OpenVINO takes a general grouped kernel. No channel has to move: the 1x1 convolution that follows is split too, or,
    before the head, the classifier's columns change places.
    """
    rewritten = copy.deepcopy(model)
    for name, module in list(rewritten.named_modules()):
        if isinstance(module, Downsample) and isinstance(module.project, ConvUnit) and _multiplies(module.large):
            _replace(rewritten, name, StrandedDownsample(module.large, module.project))
        if isinstance(module, Backbone) and isinstance(module.expand, ExpandConv) and _multiplies(module.expand.conv):
            module.expand = expand = StrandedExpand(module.expand.conv, module.expand)
            module.set_submodule("head", StrandedHead(module.head, len(expand.depthwise)))
    return rewritten


def depthwise_in_parts(model: nn.Module) -> nn.Module:
    """Depthwise convolutions of more than 25 taps as sums of convolutions that have some of their rows each.

    XNNPACK has depthwise kernels up to 25 taps; a larger one runs as a matrix product per channel, at 4 % of the speed.
    """
    rewritten = copy.deepcopy(model)
    for name, module in list(rewritten.named_modules()):
        if isinstance(module, nn.Conv2d) and _fits_in_parts(module):
            _replace(rewritten, name, RowsDepthwise(module))
    return rewritten


class StrandedDownsample(nn.Module):
    """`Downsample` with one depthwise convolution per output of each channel, each before its part of the 1x1."""

    def __init__(self, large: nn.Conv2d, project: ConvUnit) -> None:
        super().__init__()
        assert isinstance(project.conv, nn.Conv2d)
        strands = list(_strands(large))
        self.depthwise = nn.ModuleList(strands)
        self.project = nn.ModuleList(
            _conv_like(
                project.conv, project.conv.weight[:, index :: len(strands)], None if index else project.conv.bias
            )
            for index in range(len(strands))
        )
        self.activation = project.activation

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        first, *others = (project(conv(x)) for conv, project in zip(self.depthwise, self.project, strict=True))
        for other in others:
            first = first + other
        return self.activation(first)


class StrandedExpand(nn.Module):
    """`ExpandConv` whose channels come strand by strand: the first output of each channel, then the second."""

    def __init__(self, conv: nn.Conv2d, expand: ExpandConv) -> None:
        super().__init__()
        self.depthwise = nn.ModuleList(_strands(conv))
        order = _strand_order(conv.out_channels, len(self.depthwise))
        self.squeeze_excite = _reordered(expand.squeeze_excite, order)
        self.activation = expand.activation

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return self.activation(self.squeeze_excite(torch.cat([conv(x) for conv in self.depthwise], 1)))


class StrandedHead(nn.Module):
    """A head without norm behind `StrandedExpand`; what it returns is in the order of the original."""

    def __init__(self, head: ClassifierHead, num_strands: int) -> None:
        super().__init__()
        self.global_pool, self.norm, self.fc, self.num_strands = head.global_pool, head.norm, head.fc, num_strands
        if isinstance(head.fc, nn.Linear):
            order = _strand_order(head.in_features, num_strands)
            self.fc = copy.deepcopy(head.fc)
            self.fc.weight = nn.Parameter(head.fc.weight[:, order].contiguous(), requires_grad=False)

    def forward(self, x: Float[Tensor, "b f h w"], pre_logits: bool = False) -> Tensor:
        pooled = self.global_pool(x)
        if isinstance(self.fc, nn.Linear) and not pre_logits:
            return self.fc(pooled)
        return pooled.unflatten(1, (self.num_strands, -1)).transpose(1, 2).flatten(1, 2)  # b (c strands), or b (..) h w


class RowsDepthwise(nn.Module):
    """A depthwise convolution as a sum over its rows: the middle ones, then pairs at equal distance from the middle.

    Each part is symmetric about the middle of the kernel, so that dilation and padding express its place.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        middle, (height, width) = conv.kernel_size[0] // 2, conv.kernel_size
        reach = 1 if 3 * width <= MAX_TAPS else 0
        rows = [list(range(middle - reach, middle + reach + 1))]
        rows += [[middle - distance, middle + distance] for distance in range(reach + 1, height - middle)]
        self.parts = nn.ModuleList(_rows_of(conv, own, with_bias=own is rows[0]) for own in rows)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        first, *others = self.parts
        total = first(x)
        for other in others:
            total = total + other(x)
        return total


def _multiplies(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution with several outputs per input channel."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels < layer.out_channels


def _fits_in_parts(conv: nn.Conv2d) -> bool:
    height, width = conv.kernel_size
    is_centred = (height % 2, width % 2) == (1, 1) and conv.padding == (height // 2, width // 2)
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels
    return is_depthwise and is_centred and conv.dilation == (1, 1) and height * width > MAX_TAPS >= 2 * width


def _strands(conv: nn.Conv2d) -> Iterator[nn.Conv2d]:
    """One depthwise convolution per output of each channel."""
    count = conv.out_channels // conv.in_channels
    for index in range(count):
        yield _conv_like(conv, conv.weight[index::count], None if conv.bias is None else conv.bias[index::count])


def _strand_order(channels: int, num_strands: int) -> Tensor:
    """Where each channel, strand by strand, was before."""
    return torch.arange(channels).view(-1, num_strands).T.flatten()  # (strands c)


def _reordered(squeeze_excite: SqueezeExcite, order: Tensor) -> SqueezeExcite:
    reordered = copy.deepcopy(squeeze_excite)
    reordered.reduce = _conv_like(reordered.reduce, reordered.reduce.weight[:, order], reordered.reduce.bias)
    bias = reordered.expand.bias
    assert bias is not None
    reordered.expand = _conv_like(reordered.expand, reordered.expand.weight[order], bias[order])
    return reordered


def _rows_of(conv: nn.Conv2d, rows: list[int], *, with_bias: bool) -> nn.Conv2d:
    part = _conv_like(conv, conv.weight[:, :, rows], conv.bias if with_bias else None)
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    part.dilation, part.padding = (step, 1), (conv.kernel_size[0] // 2 - rows[0], conv.kernel_size[1] // 2)
    return part


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the stride and padding of `conv`; the shape of `weight` says channels and kernel."""
    depthwise = conv.groups > 1
    like = nn.Conv2d(
        weight.shape[0] if depthwise else weight.shape[1],
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        (conv.stride[0], conv.stride[1]),
        groups=weight.shape[0] if depthwise else 1,
        bias=bias is not None,
        device="meta",
    )
    like.padding = conv.padding
    like.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
    if bias is not None:
        like.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return like.eval()


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    assert name, "a bare block has no parent in which to replace it"
    model.set_submodule(name, module.eval())
