"""Twins' attention in place of the hierarchical one (ablation of FasterViT, Table 5)."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.as_built import check_as_built
from hybridvit.folding.kernel import Affine, Kernel, conv_owning
from hybridvit.models.attention import attention
from hybridvit.models.fastvit.reparameterised import PositionalEncoding
from hybridvit.models.hat.config import HATConfig
from hybridvit.models.hat.residual import ResidualMLP, TokenResidual
from hybridvit.tracing import one_node

RATE = 2  # tokens per key and side, the "k = 2" of FasterViT's section on this ablation


class Twins(nn.Module):
    """Blocks in which each token attends to a sub-sampled map (Chu et al., Twins, 2021, section 3.2).

    Twins itself alternates this with attention in windows; the multiply-adds of Table 5 are those of the global kind in
    every block. A depthwise convolution behind the first block tells the places (section 3.1), for maps of any size.
    """

    def __init__(self, dim: int, config: HATConfig, drop_path_rates: Sequence[float]) -> None:
        super().__init__()
        self.position = PositionalEncoding(dim, kernel_size=3)
        self.blocks = nn.ModuleList(TwinsBlock(dim, config, rate) for rate in drop_path_rates)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        for index, block in enumerate(self.blocks):
            x = self.position(block(x)) if index == 0 else block(x)
        return x


class TwinsBlock(nn.Module):
    """Sub-sampled attention, then an MLP."""

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__()
        self.attention = SubsampledAttention(dim, config, drop_path_rate)
        self.mlp = ResidualMLP(dim, config, drop_path_rate)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        size = x.shape[-2:]
        tokens = self.attention(x.flatten(2).mT, size)  # b hw c
        return self.mlp(tokens, x.shape[0]).mT.unflatten(-1, size)  # b c h w


class SubsampledAttention(TokenResidual):
    """Attention from every token to one key per 2x2 tokens, which a convolution makes of them."""

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__(dim, config, drop_path_rate)
        self.mixing = SubsampledMixing(
            config.num_heads,
            to_query=nn.Linear(dim, dim),
            subsample=nn.Conv2d(dim, dim, RATE, RATE),
            key_norm=nn.LayerNorm(dim),
            to_key_value=nn.Linear(dim, 2 * dim),
            to_out=nn.Linear(dim, dim),
        )

    def forward(self, x: Float[Tensor, "b t c"], size: Sequence[int]) -> Float[Tensor, "b t c"]:
        return self.add(x, self.mixing(self.norm(x), size), x.shape[0])

    @torch.no_grad()
    def folded(self) -> nn.Module:
        check_as_built(self.mixing, SubsampledMixing)
        mixing, key_norm = self.mixing, Affine.of_layer_norm(self.mixing.key_norm)
        return FoldedSubsampledAttention(
            self.plain_norm(),
            SubsampledMixing(
                mixing.num_heads,
                to_query=self.first(mixing.to_query).as_linear(mixing.to_query),
                subsample=_after(Affine.of_layer_norm(self.norm), mixing.subsample),
                key_norm=nn.LayerNorm(mixing.key_norm.normalized_shape, mixing.key_norm.eps, elementwise_affine=False),
                to_key_value=Kernel.of(mixing.to_key_value).after(key_norm).as_linear(mixing.to_key_value),
                to_out=self.last(mixing.to_out),
            ),
        )


class FoldedSubsampledAttention(nn.Module):
    """`SubsampledAttention` for inference: affine parts of norms and the layer scale are inside the layers."""

    def __init__(self, norm: nn.LayerNorm, mixing: "SubsampledMixing") -> None:
        super().__init__()
        self.norm, self.mixing = norm, mixing

    def forward(self, x: Float[Tensor, "b t c"], size: Sequence[int]) -> Float[Tensor, "b t c"]:
        return x + self.mixing(self.norm(x), size)


class SubsampledMixing(nn.Module):
    """The layers between norm and residual sum; a map of 7x7 tokens has 3x3 keys."""

    def __init__(
        self,
        num_heads: int,
        *,
        to_query: nn.Linear,
        subsample: nn.Conv2d,
        key_norm: nn.LayerNorm,
        to_key_value: nn.Linear,
        to_out: nn.Linear,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_query, self.subsample, self.key_norm = to_query, subsample, key_norm
        self.to_key_value, self.to_out = to_key_value, to_out

    def forward(self, x: Float[Tensor, "b t c"], size: Sequence[int]) -> Float[Tensor, "b t c"]:
        pixels = repeated_to(x.mT.unflatten(-1, size), RATE)  # b c h w
        keys = self.key_norm(self.subsample(pixels).flatten(2).mT)  # b keys c
        query = self.to_query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # b heads t d
        key, value = self.to_key_value(keys).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attention(query, key, value)  # b heads t d
        return self.to_out(mixed.transpose(1, 2).flatten(2))  # b t c


@one_node
def repeated_to(x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c ph pw"]:
    """The last row and column of a map repeated until both sides are at least `side`.

    Repeated, because an affine map before it then is one behind it; with zeros the fold would be wrong.
    """
    missing = [cast(int, torch.sym_max(side - length, 0)) for length in x.shape[-2:]]  # no ints in a graph
    if torch.compiler.is_compiling() or any(missing):  # in a graph no choice is made by the size
        return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
    return x


def _after(affine: Affine, conv: nn.Module) -> nn.Conv2d:
    """A convolution without padding behind an affine map: its shift reaches all pixels of a kernel."""
    kernel = Kernel.of(conv)
    assert isinstance(conv, nn.Conv2d)
    bias = kernel.bias + kernel.weight.sum((2, 3)) @ affine.shift
    folded = Kernel(kernel.weight * affine.gain[:, None, None], bias).cast(conv.weight)
    return conv_owning(conv, folded.weight, folded.bias)
