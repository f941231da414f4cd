"""Positions of tokens: absolute embeddings and relative biases, computed for any grid in every call.

Both are functions of coordinates alone (FasterViT, section 3.3, after SwinV2): a model that was trained on one grid
can be run on any other. Where the grid is known, a fold makes constants of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridvit.folding.as_built import check_as_built
from hybridvit.models.hat.config import HATConfig

OFFSET_SCALE, MAX_BIAS = 8.0, 16.0  # of SwinV2's log-spaced bias


@dataclass(frozen=True)
class Grid:
    """Places of tokens: `rows` x `columns` blocks of `side` x `side`, block by block, row-major in both.

    The tokens of a window are one block; the carriers of a map are a block per window. A grid is made for one pass, in
    which the blocks of a stage share it.
    """

    rows: int
    columns: int
    side: int
    _made: dict[object, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    def coordinates(self, make: "Coordinates", device: torch.device, dtype: torch.dtype) -> Tensor:
        """What `make` computes of this grid: by the first that asks, since no weight changes it."""
        key = make, device, dtype
        if key not in self._made:
            self._made[key] = make(self, device, dtype)
        return self._made[key]


Coordinates = Callable[[Grid, torch.device, torch.dtype], Tensor]


def centred_places(grid: Grid, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "t 2"]:
    """(place - floor(side / 2)) / floor(side / 2) of each token per axis, 0 on a side of length 1."""
    axes = [
        (place - side // 2).to(dtype) / max(side // 2, 1)
        for place, side in zip(grid.places(device), grid.sides, strict=True)
    ]
    return torch.stack(axes, -1)


def log_spaced_offsets(grid: Grid, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "dy dx 2"]:
    """Every offset between two tokens: per axis scaled to -8 .. 8, then sign(v) log2(|v| + 1) / log2(8)."""
    axes = []
    for side in grid.sides:
        offset = torch.arange(2 * side - 1, device=device).to(dtype) - (side - 1)
        scaled = offset * (OFFSET_SCALE / max(side - 1, 1))
        axes.append(scaled.sign() * (scaled.abs() + 1).log2() / 3)
    down, right = axes
    shape = (down.shape[0], right.shape[0])
    return torch.stack((down[:, None].expand(shape), right.expand(shape)), -1)


def offset_of_pairs(grid: Grid, device: torch.device, dtype: torch.dtype) -> Int[Tensor, "pairs"]:
    """For each pair of tokens, query before key, the number of its offset in a flat table of all; of any `dtype`."""
    (height, width), (rows, columns) = grid.sides, grid.places(device)
    down = rows[:, None] - rows + height - 1  # query key
    right = columns[:, None] - columns + width - 1
    return (down * (2 * width - 1) + right).flatten()


class PositionTerm(nn.Module, ABC):
    """What is added to tokens or attention scores because of where the tokens are."""

    @abstractmethod
    def compute(self, grid: Grid) -> Tensor:
        """The term for a grid, differentiable, in float32 or wider."""

    @abstractmethod
    def fixed(self, grid: Grid) -> "PositionTerm":
        """A frozen form for `grid` alone, which its forward pass takes for granted.

        What is set on modules inside, such as hooks, is left out: whoever asks has made sure that there is nothing.

        Raises:
            NotAsBuilt: if it is not of the class that it was built as.
        """

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


class PositionEmbedding(PositionTerm):
    """An MLP of each token's coordinates, 2 -> hidden -> dim, added to the tokens."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.mlp = CoordinateMLP(hidden, dim)

    def forward(self, grid: Grid, dtype: torch.dtype) -> Float[Tensor, "t c"]:
        with _full_precision(self.device):
            return self.compute(grid).to(dtype)

    def compute(self, grid: Grid) -> Float[Tensor, "t c"]:
        return self.mlp(grid.coordinates(centred_places, self.device, _at_least_float32(self.dtype)))

    def fixed(self, grid: Grid) -> "FixedEmbedding":
        return FixedEmbedding(self(grid, self.dtype))


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
        with _full_precision(self.device):
            return F.pad(self.compute(grid), (num_carriers, 0, num_carriers, 0)).to(dtype)

    def compute(self, grid: Grid) -> Float[Tensor, "heads t t"]:
        table, (height, width) = self.table(grid), grid.sides
        pairs = grid.coordinates(offset_of_pairs, table.device, table.dtype)
        return table.flatten(1).index_select(1, pairs).unflatten(1, (height * width, height * width))

    def fixed(self, grid: Grid) -> "BiasTable":
        check_as_built(self, LogSpacedBias, BiasTable)
        with _full_precision(self.device):
            return BiasTable(self.table(grid).to(self.dtype)).requires_grad_(False)


class LogSpacedBias(RelativeBias):
    """SwinV2's bias: 16 sigmoid(MLP(log-spaced offset)) (Liu et al., 2022, section 3.3), for any window or grid."""

    def __init__(self, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.mlp = CoordinateMLP(hidden, num_heads)

    def table(self, grid: Grid) -> Float[Tensor, "heads dy dx"]:
        offsets = grid.coordinates(log_spaced_offsets, self.device, _at_least_float32(self.dtype))
        return MAX_BIAS * self.mlp(offsets).sigmoid().permute(2, 0, 1)  # heads dy dx


class BiasTable(RelativeBias):
    """Swin's bias: a number per head and offset, for one window size."""

    def __init__(self, table: Float[Tensor, "heads dy dx"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.detach())

    def table(self, grid: Grid) -> Float[Tensor, "heads dy dx"]:
        return self.weight.to(_at_least_float32(self.dtype))


class CoordinateMLP(nn.Module):
    """Linear, ReLU, linear without bias; from two coordinates."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, hidden)
        self.out = nn.Linear(hidden, out, bias=False)

    def forward(self, x: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n out"]:
        return _in_its_dtype(F.relu(_in_its_dtype(x, self.hidden)), self.out)


def relative_bias(config: HATConfig) -> RelativeBias | None:
    """The bias between the tokens of a window."""
    if config.relative_bias == "mlp":
        return LogSpacedBias(config.num_heads, config.position_hidden)
    sides = 2 * config.window_size - 1
    return BiasTable(torch.zeros(config.num_heads, sides, sides)) if config.relative_bias == "table" else None


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """In which positions are computed: in half precision they would cost accuracy everywhere."""
    return torch.promote_types(dtype, torch.float32)


def _in_its_dtype(x: Tensor, layer: nn.Module) -> Tensor:
    """`layer(x)` in the dtype of x, to which weights of another are converted for this call."""
    weights = dict(layer.named_parameters())
    if all(weight.dtype == x.dtype for weight in weights.values()):
        return layer(x)
    return torch.func.functional_call(layer, {name: weight.to(x.dtype) for name, weight in weights.items()}, (x,))


def _full_precision(device: torch.device) -> "torch.autocast | nullcontext[None]":
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):  # meta has none
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
