"""From the attention of windows and carriers to maps over the whole picture.

Rows are queries and columns keys, each a token of the padded map in the order of the windows: window by window, row by
row in each. All rows sum to 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridvit.errors import UsageError
from hybridvit.explain.recording import BlockRecord, MapRecord, StageRecord
from hybridvit.models.hat.attention import WindowLayout, averaging, nearest_carrier


@dataclass(frozen=True, kw_only=True)
class PictureMap:
    """Attention of every token of a map to every other."""

    name: str
    matrix: Float[Tensor, "t t"]
    order: Int[Tensor, "h w"]  # of each place of the padded map the number of its token
    map_size: tuple[int, int]  # height and width without padding

    def of_query(self, row: int, column: int) -> Float[Tensor, "h w"]:
        """Where the token at a place of the map looks, over the map without padding."""
        height, width = self.map_size
        if not (0 <= row < height and 0 <= column < width):
            raise UsageError(f"The query is {row},{column}, but the map has {height} rows and {width} columns.")
        return self.matrix[self.order[row, column]][self.order][:height, :width]

    @property
    def padding_mass(self) -> float:
        """The share of attention that the tokens of the picture pay to those that fill its windows."""
        height, width = self.map_size
        real = self.order[:height, :width].flatten()
        return 1 - self.matrix[real][:, real].sum(1).mean().item()


def window_matrix(block: BlockRecord, *, window: int | None = None, head: int | None = None) -> Float[Tensor, "s s"]:
    """The attention inside a window, its carriers first; the mean over windows and heads where none is named.

    Raises:
        UsageError: for a window or head that there is not.
    """
    weights = _of_head(_recorded(block.windows), head)
    if window is None:
        return weights.mean(0)
    if not 0 <= window < len(weights):
        raise UsageError(f"The window is {window}, but {block.name} has {len(weights)}: use 0 to {len(weights) - 1}.")
    return weights[window]


def carrier_share(block: BlockRecord) -> Float[Tensor, "heads"]:
    """Per head the share of attention that tokens pay to the carriers of their window."""
    carriers = _layout(block).carriers.side ** 2
    return _recorded(block.windows).double()[:, :, carriers:, :carriers].sum(-1).mean((0, 2))


def block_map(stage: StageRecord, index: int, *, head: int | None = None) -> PictureMap:
    """One block over the whole picture: a token's own window, and through its carriers all the others.

    A carrier stands for what it has gathered before the block: in the first block for the pixels that it is pooled
    from. The 3x3 convolution before this pooling is left out.

    Raises:
        UsageError: for carriers that start as a constant, which stand for no token, and an unknown block or head.
    """
    block = _block(stage, index)
    flow = _Flow(stage, head)
    for earlier in stage.blocks[:index]:
        flow.through(earlier)
    layout = _layout(block)
    windows = _of_head(_recorded(block.windows), head)
    carriers = layout.carriers.side**2
    inside = torch.block_diag(*windows[:, carriers:, carriers:])
    if carriers:
        stands_for = flow.sources(block)
        exchanged = _exchange(block, head, stands_for)
        inside = inside + torch.block_diag(*windows[:, carriers:, :carriers]) @ exchanged
    return _picture_map(block.name, inside, stage, layout)


def rollout(stage: StageRecord, index: int, *, head: int | None = None) -> PictureMap:
    """Attention through all blocks up to `index`, each with its residual as one half (Abnar and Zuidema, 2020).

    Raises:
        UsageError: as `block_map`.
    """
    block = _block(stage, index)
    flow = _Flow(stage, head)
    for each in stage.blocks[: index + 1]:
        flow.through(each)
    if stage.stage.config.propagate and index == len(stage.blocks) - 1:
        flow.propagate(block)
    return _picture_map(block.name, flow.tokens, stage, _layout(block))


def plain_map(record: MapRecord, *, head: int | None = None) -> PictureMap:
    """The attention of a block of FastViT."""
    height, width = record.map_size
    order = torch.arange(height * width).unflatten(0, (height, width))
    matrix = _of_head(_recorded(record.weights), head)[0]
    return PictureMap(name=record.name, matrix=matrix, order=order, map_size=record.map_size)


def plain_rollout(records: list[MapRecord], *, head: int | None = None) -> PictureMap:
    """The blocks of FastViT's last stage one after the other, with the residual as one half each."""
    maps = [plain_map(record, head=head) for record in records]
    last = maps[-1]
    total = torch.eye(len(last.matrix), dtype=torch.float64)
    for each in maps:
        if each.map_size == last.map_size:
            total = (total + each.matrix @ total) / 2
    return PictureMap(name=last.name, matrix=total, order=last.order, map_size=last.map_size)


class _Flow:
    """What tokens and carriers are made of, in tokens at the start of the stage."""

    def __init__(self, stage: StageRecord, head: int | None) -> None:
        layout = _layout(stage.blocks[0])
        self.config, self.head = stage.stage.config, head
        total = layout.carriers.rows * layout.carriers.columns * layout.window.side**2
        self.tokens: Tensor = torch.eye(total, dtype=torch.float64)
        self.carriers: Tensor | None = None

    def sources(self, block: BlockRecord) -> Float[Tensor, "c t"]:
        """What the carriers stand for when the block begins."""
        layout = _layout(block)
        if self.config.carrier_source == "tokens":
            axis = averaging(1, layout.window.side, layout.carriers.side, self.tokens)
            pools = [torch.kron(axis, axis)] * (layout.carriers.rows * layout.carriers.columns)
            return torch.block_diag(*pools) @ self.tokens
        if self.config.carrier_source == "constant":
            raise UsageError(
                "The carriers of this model start as a learned constant, which stands for no token, so there is no "
                "map over the picture. Take a model whose carriers are pooled."
            )
        return _pooling(layout) if self.carriers is None else self.carriers

    def through(self, block: BlockRecord) -> None:
        """The carriers among themselves, then each window."""
        layout, windows = _layout(block), _of_head(_recorded(block.windows), self.head)
        count, length = layout.carriers.side**2, layout.window.side**2
        both = self.tokens.unflatten(0, (-1, length))  # n t all
        if count:
            carriers = self.sources(block)
            carriers = (carriers + _exchange(block, self.head, carriers)) / 2
            both = torch.cat((carriers.unflatten(0, (-1, count)), both), 1)  # n (l t) all
        both = (both + windows @ both) / 2
        self.tokens = both[:, count:].flatten(0, 1)
        self.carriers = both[:, :count].flatten(0, 1) if count else None
        if self.config.carrier_source == "tokens":
            self.propagate(block)

    def propagate(self, block: BlockRecord) -> None:
        """Each token gets one half of the carrier above it."""
        layout = _layout(block)
        if self.carriers is None:
            return
        carriers = self.carriers.unflatten(0, (-1, layout.carriers.side**2))  # n l all
        spread = carriers[:, nearest_carrier(layout, self.tokens.device)]  # n t all
        self.tokens = (self.tokens + spread.flatten(0, 1)) / 2


def _pooling(layout: WindowLayout) -> Float[Tensor, "c t"]:
    """The pooling of a whole map to carriers, both in the order of the windows (FasterViT, equation 3)."""
    rows, columns = layout.carriers.rows, layout.carriers.columns
    size, side = layout.carriers.side, layout.window.side
    like = torch.zeros((), dtype=torch.float64)
    down, across = averaging(rows, side, size, like), averaging(columns, side, size, like)
    down = down.unflatten(1, (rows, side)).unflatten(0, (rows, size))  # rows size rows side
    across = across.unflatten(1, (columns, side)).unflatten(0, (columns, size))  # columns size columns side
    return torch.einsum("iajb,kcld->ikacjlbd", down, across).flatten(0, 3).flatten(1)


def _exchange(block: BlockRecord, head: int | None, carriers: Tensor) -> Float[Tensor, "c t"]:
    return carriers if block.carriers is None else _of_head(block.carriers, head)[0] @ carriers


def _picture_map(name: str, matrix: Tensor, stage: StageRecord, layout: WindowLayout) -> PictureMap:
    rows, columns, side = layout.carriers.rows, layout.carriers.columns, layout.window.side
    numbers = torch.arange(len(matrix)).reshape(rows, columns, side, side)
    order = numbers.transpose(1, 2).reshape(rows * side, columns * side)  # rows side columns side
    return PictureMap(name=name, matrix=matrix, order=order, map_size=stage.map_size)


def _of_head(weights: Tensor, head: int | None) -> Float[Tensor, "n s s"]:
    weights = weights.cpu().double()
    if head is None:
        return weights.mean(1)
    if not 0 <= head < weights.shape[1]:
        raise UsageError(f"The head is {head}, but there are {weights.shape[1]}: use 0 to {weights.shape[1] - 1}.")
    return weights[:, head]


def _block(stage: StageRecord, index: int) -> BlockRecord:
    if not 0 <= index < len(stage.blocks):
        raise UsageError(
            f"The block is {index + 1}, but {stage.name} has {len(stage.blocks)}: use 1 to {len(stage.blocks)}."
        )
    return stage.blocks[index]


def _recorded(weights: Tensor | None) -> Tensor:
    if weights is None:
        raise UsageError("No picture has been shown to the model yet. Call it within recorded_attention(model).")
    return weights


def _layout(block: BlockRecord) -> WindowLayout:
    assert block.layout is not None, "a block that has run was told its windows"
    return block.layout
