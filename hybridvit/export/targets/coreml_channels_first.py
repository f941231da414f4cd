"""An exact rewrite for Apple's Neural Engine: what works on the pixels of a map leaves them a map.

The engine computes on (batch, channels, height, width) as it lies; each reordering to (batch, pixels, channels) and
back copies the map ("Deploying Transformers on the Apple Neural Engine", Apple, 2022, principles 1 and 3). A linear
layer on pixels is a 1x1 convolution, a LayerNorm over channels a mean along axis 1, and attention needs no transposed
operand.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.kernel import Kernel
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.fastervit.blocks import FoldedDownsample
from hybridvit.models.fastvit.blocks import HEAD_DIM, FoldedAttention


@torch.no_grad()
def channels_first(model: nn.Module) -> nn.Module:
    """A copy of a folded model whose maps are never reordered outside windows of attention; same answers."""
    rewritten = copy.deepcopy(model)
    for name, module in list(rewritten.named_modules()):
        if isinstance(module, FoldedAttention):
            norm = MapNorm.of(module.norm) if isinstance(module.norm, ChannelLayerNorm) else module.norm
            rewritten.set_submodule(name, MapAttention(norm, module.to_qkv, module.to_out))
        elif isinstance(module, FoldedDownsample):
            norm = MapNorm(module.eps, gain=None, shift=module.shift)
            rewritten.set_submodule(name, nn.Sequential(norm, module.conv))
        elif isinstance(module, ChannelLayerNorm):
            rewritten.set_submodule(name, MapNorm.of(module))
    return rewritten.eval().requires_grad_(False)


class MapNorm(nn.Module):
    """`ChannelLayerNorm` without reordering, in the form that coremltools reads as one layer_norm along axis 1."""

    def __init__(self, eps: float, *, gain: Tensor | None, shift: Tensor | None) -> None:
        super().__init__()
        self.eps = eps
        self.gain = None if gain is None else nn.Parameter(gain.detach()[:, None, None].clone(), requires_grad=False)
        self.minus_shift = None if shift is None else nn.Parameter(-shift.detach()[:, None, None], requires_grad=False)

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> "MapNorm":
        """The same as `norm`."""
        return cls(norm.eps, gain=norm.weight, shift=norm.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        centred = x - x.mean(1, keepdim=True)
        normal = centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + self.eps)
        normal = normal if self.gain is None else normal * self.gain
        # coremltools 9.0 does not see a norm in what an addition follows
        return normal if self.minus_shift is None else normal - self.minus_shift


class MapAttention(nn.Module):
    """FastViT's folded attention on the map as it lies; the attention scale is inside the queries' weights."""

    def __init__(self, norm: nn.Module, to_qkv: nn.Linear, to_out: nn.Linear) -> None:
        super().__init__()
        self.norm = norm
        kernel = Kernel.of(to_qkv)
        scale = torch.ones_like(kernel.bias)
        scale[: to_out.in_features] = HEAD_DIM**-0.5
        self.to_qkv, self.to_out = _pointwise(kernel.scaled(scale).as_linear(to_qkv)), _pointwise(to_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        qkv = self.to_qkv(self.norm(x)).flatten(2)  # b (3 heads d) hw
        q, k, v = (part.unflatten(1, (-1, HEAD_DIM)) for part in qkv.chunk(3, 1))  # each: b heads d hw
        weights = (q.mT @ k).softmax(-1)  # b heads hw hw
        mixed = v @ weights.mT  # b heads d hw
        return x + self.to_out(mixed.flatten(1, 2).unflatten(-1, x.shape[-2:]))  # b c h w


def _pointwise(linear: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution that is `linear` on every pixel."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None, device="meta")
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None].clone(), requires_grad=False)
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
    return conv
