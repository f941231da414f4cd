"""EdgeViT's blocks in place of hierarchical attention (ablation of FasterViT, Table 5)."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.as_built import check_as_built
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel, exact
from hybridvit.models.attention import attention
from hybridvit.models.drop_path import drop_path
from hybridvit.models.hat.config import HATConfig
from hybridvit.models.hat.residual import ResidualMLP, TokenResidual
from hybridvit.models.layer_scale import new_layer_scale
from hybridvit.tracing import one_node

RATE = 2  # tokens per delegate and side


class EdgeViT(nn.Module):
    """Blocks that aggregate locally, attend between few delegates, and propagate (Pan et al., EdgeViTs, 2022).

    One MLP per block: with a second one behind the aggregation the multiply-adds are not those of Table 5. Places are
    told by the zeros around the map, which the aggregation's convolution sees.
    """

    def __init__(self, dim: int, config: HATConfig, drop_path_rates: Sequence[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(EdgeViTBlock(dim, config, rate) for rate in drop_path_rates))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.blocks(x)


class EdgeViTBlock(nn.Module):
    """Local aggregation, sparse attention with propagation, an MLP."""

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__()
        self.aggregation = LocalAggregation(dim, config.layer_scale_init, drop_path_rate)
        self.attention = SparseAttention(dim, config, drop_path_rate)
        self.mlp = ResidualMLP(dim, config, drop_path_rate)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        size = x.shape[-2:]
        tokens = self.attention(self.aggregation(x))  # b hw c
        return self.mlp(tokens, x.shape[0]).mT.unflatten(-1, size)  # b c h w


class LocalAggregation(Foldable):
    """A map plus BatchNorm, 1x1, depthwise 5x5 and 1x1 convolution of it (EdgeViTs, section 3.2)."""

    def __init__(self, dim: int, layer_scale_init: float | None, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.mix = nn.Conv2d(dim, dim, 1)
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.project = nn.Conv2d(dim, dim, 1)
        self.layer_scale = None if layer_scale_init is None else new_layer_scale(layer_scale_init, dim)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        branch = self.project(self.depthwise(self.mix(self.norm(x))))
        branch = drop_path(branch, self.drop_path_rate, training=self.training)
        return x + branch if self.layer_scale is None else torch.addcmul(x, branch, self.layer_scale[:, None, None])

    def folded(self) -> nn.Module:
        project = Kernel.of(self.project)
        if self.layer_scale is not None:
            project = project.scaled(exact(self.layer_scale))
        return FoldedAggregation(
            Kernel.of(self.mix).after(Affine.of(self.norm)).as_conv(self.mix),
            Kernel.of(self.depthwise).as_conv(self.depthwise),
            project.as_conv(self.project),
        )


class FoldedAggregation(nn.Module):
    """`LocalAggregation` for inference: norm and layer scale are inside the convolutions."""

    def __init__(self, mix: nn.Conv2d, depthwise: nn.Conv2d, project: nn.Conv2d) -> None:
        super().__init__()
        self.mix, self.depthwise, self.project = mix, depthwise, project

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.project(self.depthwise(self.mix(x)))


class SparseAttention(TokenResidual):
    """Attention between one delegate per 2x2 tokens, spread by a transposed depthwise convolution, and projected.

    The delegate is the token at the top left; 7x7 tokens have 4x4 of them. The projection is of all tokens, as the
    multiply-adds of Table 5 want it.
    """

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__(dim, config, drop_path_rate)
        self.mixing = SparseMixing(
            config.num_heads,
            to_qkv=nn.Linear(dim, 3 * dim),
            propagate=nn.ConvTranspose2d(dim, dim, RATE, RATE, groups=dim),
            to_out=nn.Linear(dim, dim),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t c"]:
        return self.add(x.flatten(2).mT, self.mixing(x, self.norm), x.shape[0])  # b hw c

    @torch.no_grad()
    def folded(self) -> nn.Module:
        check_as_built(self.mixing, SparseMixing)
        mixing = SparseMixing(
            self.mixing.num_heads,
            to_qkv=self.first(self.mixing.to_qkv).as_linear(self.mixing.to_qkv),
            propagate=copy.deepcopy(self.mixing.propagate),
            to_out=self.last(self.mixing.to_out),
        )
        return FoldedSparseAttention(self.plain_norm(), mixing)


class FoldedSparseAttention(nn.Module):
    """`SparseAttention` for inference: the norm's affine part and the layer scale are inside the linear layers."""

    def __init__(self, norm: nn.LayerNorm, mixing: "SparseMixing") -> None:
        super().__init__()
        self.norm, self.mixing = norm, mixing

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t c"]:
        return x.flatten(2).mT + self.mixing(x, self.norm)  # b hw c


class SparseMixing(nn.Module):
    """The layers of the branch; only the delegates are normalised."""

    def __init__(self, num_heads: int, *, to_qkv: nn.Linear, propagate: nn.ConvTranspose2d, to_out: nn.Linear) -> None:
        super().__init__()
        self.num_heads, self.to_qkv, self.propagate, self.to_out = num_heads, to_qkv, propagate, to_out

    def forward(self, x: Float[Tensor, "b c h w"], norm: nn.Module) -> Float[Tensor, "b t c"]:
        delegates = x[..., ::RATE, ::RATE]
        qkv = self.to_qkv(norm(delegates.flatten(2).mT)).unflatten(-1, (3, self.num_heads, -1))  # b t 3 heads d
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each: b heads t d
        mixed = attention(q, k, v).transpose(2, 3).flatten(1, 2)  # b c t
        spread = self.propagate(mixed.unflatten(-1, delegates.shape[-2:]))  # b c h w, one more where a side is odd
        return self.to_out(cropped(spread, x.shape[-2], x.shape[-1]).mT)  # b hw c


@one_node
def cropped(x: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c hw"]:
    """The pixels of a map's first `height` rows and `width` columns.

    Through an index, which puts no condition on the size in a graph.
    """
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    place = rows[:, None] * x.shape[-1] + columns  # h w
    return x.flatten(2).index_select(2, place.flatten())
