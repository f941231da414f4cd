"""FastViT's folded form rewritten for runtimes that are slow at convolutions with several outputs per channel."""

import copy
from collections.abc import Iterator
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.kernel import conv_like
from hybridvit.models.backbone import Backbone
from hybridvit.models.fastvit.model import ConvUnit, Downsample, ExpandConv, SqueezeExcite
from hybridvit.models.head import ClassifierHead


def doubling_as_depthwise(model: nn.Module) -> nn.Module:
    """FastViT's convolutions with several outputs per input channel, as that many depthwise ones side by side.

    Runtimes have fast kernels for one output per channel alone; for two, ONNX Runtime leaves its blocked layout and
    OpenVINO takes a general grouped kernel. No channel has to move: the 1x1 convolution that follows is split too, or,
    before the head, the classifier's columns change places.
    """
    rewritten = copy.deepcopy(model)
    for name, module in list(rewritten.named_modules()):
        if isinstance(module, Downsample) and isinstance(module.project, ConvUnit) and _multiplies(module.large):
            rewritten.set_submodule(name, StrandedDownsample(module, module.large, module.project).eval())
        if isinstance(module, Backbone) and isinstance(module.expand, ExpandConv) and _multiplies(module.expand.conv):
            module.expand = expand = StrandedExpand(module.expand.conv, module.expand)
            module.set_submodule("head", StrandedHead(module.head, len(expand.depthwise)))
    return rewritten


class StrandedDownsample(nn.Module):
    """`Downsample` with one depthwise convolution per output of each channel, each before its part of the 1x1.

    What stands between the two works on each channel by itself but for squeeze-and-excite, which sees the means of all.
    """

    def __init__(self, downsample: Downsample, large: nn.Conv2d, project: ConvUnit) -> None:
        super().__init__()
        assert isinstance(project.conv, nn.Conv2d)
        strands = list(_strands(large))
        self.depthwise: nn.ModuleList = nn.ModuleList(strands)
        self.weigh: nn.Module = nn.Identity()
        if isinstance(downsample.squeeze_excite, SqueezeExcite):
            order = _strand_order(large.out_channels, len(strands))
            self.weigh = StrandedSqueezeExcite(_reordered(downsample.squeeze_excite, order))
        self.between: nn.Module = downsample.activation
        self.project: nn.ModuleList = nn.ModuleList(
            conv_like(project.conv, project.conv.weight[:, index :: len(strands)], None if index else project.conv.bias)
            for index in range(len(strands))
        )
        self.activation: nn.Module = project.activation

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        strands = self.weigh([conv(x) for conv in self.depthwise])
        first, *others = (project(self.between(strand)) for strand, project in zip(strands, self.project, strict=True))
        for other in others:
            first = first + other
        return self.activation(first)


class StrandedSqueezeExcite(nn.Module):
    """`SqueezeExcite` on channels that lie strand by strand, each strand a map of its own."""

    def __init__(self, squeeze_excite: SqueezeExcite) -> None:
        super().__init__()
        self.inside = squeeze_excite

    def forward(self, strands: list[Tensor]) -> list[Tensor]:
        """Each (b, c, h, w), weighed by the means of all."""
        gates = self.inside.gates(torch.cat([strand.mean((2, 3), keepdim=True) for strand in strands], 1))
        return [strand * gate for strand, gate in zip(strands, gates.chunk(len(strands), 1), strict=True)]


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
        pooled = self.in_order(pooled)
        return pooled if pre_logits else self.fc(pooled)

    def in_order(self, x: Tensor) -> Tensor:
        """Strands of channels, (b, f) or (b, f, h, w), in the order that they had before."""
        return x.unflatten(1, (self.num_strands, -1)).transpose(1, 2).flatten(1, 2)  # b (c strands), or b (..) h w


def _multiplies(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution with several outputs per input channel."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels < layer.out_channels


def _strands(conv: nn.Conv2d) -> Iterator[nn.Conv2d]:
    """One depthwise convolution per output of each channel."""
    count = conv.out_channels // conv.in_channels
    for index in range(count):
        yield conv_like(conv, conv.weight[index::count], None if conv.bias is None else conv.bias[index::count])


def _strand_order(channels: int, num_strands: int) -> Tensor:
    """Where each channel, strand by strand, was before."""
    return torch.arange(channels).view(-1, num_strands).T.flatten()  # (strands c)


def _reordered(squeeze_excite: SqueezeExcite, order: Tensor) -> SqueezeExcite:
    reordered = copy.deepcopy(squeeze_excite)
    reordered.reduce = conv_like(reordered.reduce, reordered.reduce.weight[:, order], reordered.reduce.bias)
    bias = reordered.expand.bias
    assert bias is not None
    reordered.expand = conv_like(reordered.expand, reordered.expand.weight[order], bias[order])
    return reordered
