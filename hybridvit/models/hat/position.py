"""Positions of tokens: absolute embeddings and relative biases, computed for any grid and remembered in eval mode.

Both are functions of coordinates alone (FasterViT, section 3.3, after SwinV2): a model that was trained on one grid
can be run on any other. In training, and wherever gradients are wanted, they are computed anew in every call; else
once per grid and dtype, and again as soon as a weight has changed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridvit.folding.eval_cache import Remembering, is_traced
from hybridvit.models.hat.config import HATConfig

MAX_CACHE_BYTES = 128 * 2**20  # per module; the carriers' bias takes 67 MB at 2048 x 2048 px with 8 heads
OFFSET_SCALE, MAX_BIAS = 8.0, 16.0  # of SwinV2's log-spaced bias


@dataclass(frozen=True)
class Grid:
    """Places of tokens: `rows` x `columns` blocks of `side` x `side`, block by block, row-major in both.

    The tokens of a window are one block; the carriers of a map are a block per window.
    """

    rows: int
    columns: int
    side: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in places."""
        return self.rows * self.side, self.columns * self.side

    def places(self, device: torch.device) -> tuple[Int[Tensor, "t"], Int[Tensor, "t"]]:
        """Row and column of each token."""
        within = torch.arange(self.side, device=device)
        rows = torch.arange(self.rows, device=device)[:, None, None, None] * self.side + within[:, None]
        columns = torch.arange(self.columns, device=device)[:, None, None] * self.side + within
        shape = (self.rows, self.columns, self.side, self.side)
        return rows.expand(shape).flatten(), columns.expand(shape).flatten()


class PositionTerm(Remembering[Tensor], ABC):
    """What is added to tokens or attention scores because of where the tokens are."""

    max_bytes = MAX_CACHE_BYTES

    @abstractmethod
    def compute(self, grid: Grid) -> Tensor:
        """The term for a grid, differentiable, in float32 or wider."""

    @abstractmethod
    def fixed(self, grid: Grid) -> "PositionTerm":
        """A frozen form for `grid` alone, which its forward pass takes for granted."""

    def remembered(self, grid: Grid, dtype: torch.dtype, make: Callable[[], Tensor], key: object = None) -> Tensor:
        """`make()` in `dtype`, from the cache if it may come from there. Autocast does not reach it."""
        if is_traced() or (torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters())):
            with _full_precision(next(self.parameters()).device):
                return make().to(dtype)
        place = (grid, dtype, next(self.parameters()).device, key)
        term = self._cache.current(place)
        if term is None:
            with torch.inference_mode(False), torch.no_grad(), _full_precision(next(self.parameters()).device):
                term = make().to(dtype)  # usable in a later backward, whatever mode this is
            if not self.training:
                self._cache.store(term, self, key=place, num_bytes=0 if term.is_meta else term.nbytes)
        return term


class PositionEmbedding(PositionTerm):
    """An MLP of each token's coordinates, 2 -> hidden -> dim, added to the tokens.

    Coordinates are (place - floor(side / 2)) / floor(side / 2) per axis, 0 on a side of length 1.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.mlp = CoordinateMLP(hidden, dim)

    def forward(self, grid: Grid, dtype: torch.dtype) -> Float[Tensor, "t c"]:
        return self.remembered(grid, dtype, lambda: self.compute(grid))

    def compute(self, grid: Grid) -> Float[Tensor, "t c"]:
        places, dtype = grid.places(self.mlp.device), self.mlp.dtype
        axes = [
            (place - side // 2).to(dtype) / max(side // 2, 1) for place, side in zip(places, grid.sides, strict=True)
        ]
        return self.mlp(torch.stack(axes, -1))

    def fixed(self, grid: Grid) -> "FixedEmbedding":
        return FixedEmbedding(self.compute(grid).to(next(self.parameters())))


class FixedEmbedding(PositionTerm):
    """The embedding of one grid as a constant."""

    def __init__(self, value: Float[Tensor, "t c"]) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach(), requires_grad=False)

    def forward(self, grid: Grid, dtype: torch.dtype) -> Float[Tensor, "t c"]:
        return self.value.to(dtype)

    def compute(self, grid: Grid) -> Float[Tensor, "t c"]:
        return self.value

    def fixed(self, grid: Grid) -> "FixedEmbedding":
        return FixedEmbedding(self.value.clone())


class RelativeBias(PositionTerm):
    """What is added to the attention score of each pair of tokens, per head, because of the offset between them."""

    @abstractmethod
    def table(self, grid: Grid) -> Float[Tensor, "heads dy dx"]:
        """The bias of every offset, from -(side - 1) to side - 1 per axis."""

    def forward(self, grid: Grid, dtype: torch.dtype, num_carriers: int = 0) -> Float[Tensor, "heads t t"]:
        """The bias of all pairs, query before key; `num_carriers` tokens in front have none, with any other."""

        def padded() -> Tensor:
            return F.pad(self.compute(grid), (num_carriers, 0, num_carriers, 0))

        return self.remembered(grid, dtype, padded, key=num_carriers)

    def compute(self, grid: Grid) -> Float[Tensor, "heads t t"]:
        table = self.table(grid)
        (height, width), (rows, columns) = grid.sides, grid.places(table.device)
        down = rows[:, None] - rows + height - 1  # query key
        right = columns[:, None] - columns + width - 1
        pairs = (down * (2 * width - 1) + right).flatten()
        return table.flatten(1).index_select(1, pairs).unflatten(1, (rows.shape[0], rows.shape[0]))

    def fixed(self, grid: Grid) -> "BiasTable":
        table = BiasTable(self.table(grid).to(next(self.parameters())))
        table.requires_grad_(False)
        return table


class LogSpacedBias(RelativeBias):
    """SwinV2's bias: 16 sigmoid(MLP(log-spaced offset)) (Liu et al., 2022, section 3.3), for any window or grid."""

    def __init__(self, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.mlp = CoordinateMLP(hidden, num_heads)

    def table(self, grid: Grid) -> Float[Tensor, "heads dy dx"]:
        down, right = (_log_spaced(side, self.mlp.device, self.mlp.dtype) for side in grid.sides)
        shape = (down.shape[0], right.shape[0])
        offsets = torch.stack((down[:, None].expand(shape), right.expand(shape)), -1)  # dy dx 2
        return MAX_BIAS * self.mlp(offsets).sigmoid().permute(2, 0, 1)  # heads dy dx


class BiasTable(RelativeBias):
    """Swin's bias: a number per head and offset, for one window size."""

    def __init__(self, table: Float[Tensor, "heads dy dx"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.detach())

    def table(self, grid: Grid) -> Float[Tensor, "heads dy dx"]:
        return self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))


class CoordinateMLP(nn.Module):
    """Linear, ReLU, linear without bias; from two coordinates."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, hidden)
        self.out = nn.Linear(hidden, out, bias=False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: float32 at least, for biases of half precision would cost accuracy everywhere."""
        return torch.promote_types(self.out.weight.dtype, torch.float32)

    def forward(self, x: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n out"]:
        hidden = F.linear(x, self.hidden.weight.to(x), self.hidden.bias.to(x))
        return F.linear(F.relu(hidden), self.out.weight.to(x))


def relative_bias(config: HATConfig) -> RelativeBias | None:
    """The bias between the tokens of a window."""
    if config.relative_bias == "mlp":
        return LogSpacedBias(config.num_heads, config.position_hidden)
    sides = 2 * config.window_size - 1
    return BiasTable(torch.zeros(config.num_heads, sides, sides)) if config.relative_bias == "table" else None


def _log_spaced(side: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "offsets"]:
    """Offsets along one axis: scaled to -8 .. 8, then sign(v) log2(|v| + 1) / log2(8)."""
    offset = torch.arange(2 * side - 1, device=device).to(dtype) - (side - 1)
    scaled = offset * (OFFSET_SCALE / max(side - 1, 1))
    return scaled.sign() * (scaled.abs() + 1).log2() / 3


def _full_precision(device: torch.device) -> "torch.autocast | nullcontext[None]":
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):  # meta has none
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
