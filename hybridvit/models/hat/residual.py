"""The two residual branches of a transformer block on tokens, attention and MLP, each with its folded form."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel, exact
from hybridvit.models.attention import attention
from hybridvit.models.drop_path import drop_path
from hybridvit.models.hat.config import HATConfig
from hybridvit.models.hat.position import Grid, PositionEmbedding, RelativeBias
from hybridvit.models.layer_scale import new_layer_scale


class TokenResidual(Foldable):
    """A branch behind a LayerNorm, added to its input: `x + drop_path(layer_scale * branch(norm(x)))`."""

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__()
        init = config.layer_scale_init
        self.norm = nn.LayerNorm(dim)
        self.layer_scale = None if init is None else new_layer_scale(init, dim)
        self.drop_path_rate = drop_path_rate

    def add(self, x: Float[Tensor, "n t c"], branch: Float[Tensor, "n t c"], num_images: int) -> Float[Tensor, "n t c"]:
        """The residual sum; in training the branch is dropped for whole images, whose windows follow each other."""
        branch = drop_path(branch, self.drop_path_rate, training=self.training, num_images=num_images)
        return x + branch if self.layer_scale is None else torch.addcmul(x, branch, self.layer_scale)

    def first(self, layer: nn.Module) -> Kernel:
        """`layer` with the affine part of the norm before it."""
        return Kernel.of(layer).after(Affine.of_layer_norm(self.norm))

    def last(self, layer: nn.Module) -> nn.Linear:
        """`layer` with the layer scale after it."""
        kernel = Kernel.of(layer)
        if self.layer_scale is not None:
            kernel = kernel.scaled(exact(self.layer_scale))
        return kernel.as_linear(layer)

    def plain_norm(self) -> nn.LayerNorm:
        """The norm without its affine part."""
        return nn.LayerNorm(self.norm.normalized_shape, self.norm.eps, elementwise_affine=False)


class WindowPosition(Foldable):
    """The embedding of the places in a window of one size, which a fold makes a constant."""

    def __init__(self, embedding: PositionEmbedding, window_size: int) -> None:
        super().__init__()
        self.embedding, self.window_size = embedding, window_size

    def forward(self, grid: Grid, dtype: torch.dtype) -> Float[Tensor, "t c"]:
        return self.embedding(grid, dtype)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        return self.embedding.fixed(Grid(1, 1, self.window_size))


class ResidualAttention(TokenResidual):
    """Multi-head self-attention with a relative bias (FasterViT, equations 4 and 6).

    `window_size` is the side of the one window that its tokens are, or None where their grid depends on the image;
    `propagates` says that its layer scale has a second use and must survive folding.
    """

    propagates = False

    def __init__(
        self,
        dim: int,
        config: HATConfig,
        drop_path_rate: float,
        *,
        bias: RelativeBias | None,
        window_size: int | None = None,
    ) -> None:
        super().__init__(dim, config, drop_path_rate)
        self.num_heads, self.bias, self.window_size = config.num_heads, bias, window_size
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "n t c"], grid: Grid, num_images: int, num_carriers: int = 0
    ) -> Float[Tensor, "n t c"]:
        mixed = attend(self.norm(x), self.to_qkv, self.to_out, self.num_heads, self.bias, grid, num_carriers)
        return self.add(x, mixed, num_images)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        bias = self.bias
        if bias is not None:
            bias = copy.deepcopy(bias) if self.window_size is None else bias.fixed(Grid(1, 1, self.window_size))
        return FoldedAttention(
            self.plain_norm(),
            self._scaled_qkv(),
            self.last(self.to_out),
            self.num_heads,
            bias=bias,
            layer_scale=self.layer_scale if self.propagates else None,
        )

    def _scaled_qkv(self) -> nn.Linear:
        """The projection with the norm before it, and with the attention scale in its queries."""
        kernel = self.first(self.to_qkv)
        dim = kernel.bias.shape[0] // 3
        scale = torch.ones_like(kernel.bias)
        scale[:dim] = (dim // self.num_heads) ** -0.5
        return kernel.scaled(scale).as_linear(self.to_qkv)


class FoldedAttention(nn.Module):
    """`ResidualAttention` for inference: norm, attention scale and layer scale are inside the linear layers."""

    def __init__(
        self,
        norm: nn.LayerNorm,
        to_qkv: nn.Linear,
        to_out: nn.Linear,
        num_heads: int,
        *,
        bias: RelativeBias | None,
        layer_scale: Float[Tensor, "c"] | None,
    ) -> None:
        super().__init__()
        self.norm, self.to_qkv, self.to_out, self.num_heads, self.bias = norm, to_qkv, to_out, num_heads, bias
        self.layer_scale: nn.Parameter | None = None
        if layer_scale is not None:
            self.layer_scale = nn.Parameter(layer_scale.detach().clone(), requires_grad=False)

    def forward(
        self, x: Float[Tensor, "n t c"], grid: Grid, num_images: int, num_carriers: int = 0
    ) -> Float[Tensor, "n t c"]:
        mixed = attend(self.norm(x), self.to_qkv, self.to_out, self.num_heads, self.bias, grid, num_carriers, scale=1.0)
        return mixed.add_(x)  # in place: a new tensor of this size costs more than the sum


class ResidualMLP(TokenResidual):
    """Linear, GELU, linear, on each token alone (FasterViT, equations 4 and 6)."""

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__(dim, config, drop_path_rate)
        self.expand = nn.Linear(dim, config.mlp_ratio * dim)
        self.project = nn.Linear(config.mlp_ratio * dim, dim)

    def forward(self, x: Float[Tensor, "n t c"], num_images: int) -> Float[Tensor, "n t c"]:
        return self.add(x, self.project(F.gelu(self.expand(self.norm(x)))), num_images)

    def folded(self) -> nn.Module:
        return FoldedMLP(self.plain_norm(), self.first(self.expand).as_linear(self.expand), self.last(self.project))


class FoldedMLP(nn.Module):
    """`ResidualMLP` for inference: the norm's affine part and the layer scale are inside the linear layers."""

    def __init__(self, norm: nn.LayerNorm, expand: nn.Linear, project: nn.Linear) -> None:
        super().__init__()
        self.norm, self.expand, self.project = norm, expand, project

    def forward(self, x: Float[Tensor, "n t c"], num_images: int) -> Float[Tensor, "n t c"]:
        return self.project(F.gelu(self.expand(self.norm(x)))).add_(x)


def attend(
    x: Float[Tensor, "n t c"],
    to_qkv: nn.Module,
    to_out: nn.Module,
    num_heads: int,
    bias: RelativeBias | None,
    grid: Grid,
    num_carriers: int,
    *,
    scale: float | None = None,
) -> Float[Tensor, "n t c"]:
    """Attention between all tokens of a sequence; the channels of `to_qkv` are ordered (3, heads, dim).

    Scores are multiplied by `scale`, by default 1 / sqrt(dim of a head).
    """
    qkv = to_qkv(x).unflatten(-1, (3, num_heads, -1))  # n t 3 heads d
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each: n heads t d
    scores = None if bias is None else bias(grid, q.dtype, num_carriers)[None]  # 1 heads t t, as the fused kernel asks
    mixed = attention(q, k, v, scores, scale=scale)  # n heads t d
    return to_out(mixed.transpose(1, 2).flatten(2))  # n t c
