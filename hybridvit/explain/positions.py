"""What a model with hierarchical attention has learned of places: biases by offset, embeddings by place."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.models.backbone import Backbone
from hybridvit.models.hat.attention import HATBlock, HierarchicalAttention
from hybridvit.models.hat.position import Grid, PositionTerm, RelativeBias


@dataclass(frozen=True, kw_only=True)
class BlockPositions:
    """The position terms of one block; None where it has none."""

    name: str
    window_bias: Float[Tensor, "heads dy dx"] | None  # by offset, the middle being none
    carrier_bias: Float[Tensor, "heads dy dx"] | None  # on the grid of this image size
    window_norm: Float[Tensor, "h w"] | None  # length of the embedding of each place
    carrier_norm: Float[Tensor, "h w"] | None


@torch.no_grad()
def block_positions(model: Backbone, image_size: tuple[int, int]) -> list[BlockPositions]:
    """The position terms of all blocks for images of that height and width (FasterViT, Figure S.3).

    Raises:
        UsageError: for a model without hierarchical attention.
    """
    found = []
    for index, (stage, info) in enumerate(zip(model.stages, model.feature_info, strict=True)):
        for name, part in stage.named_modules(prefix=f"stages.{index}"):
            if isinstance(part, HierarchicalAttention):
                height, width = (-(-side // info["reduction"]) for side in image_size)
                side, carriers = part.config.window_size, part.config.carrier_size
                rows, columns = -(-height // side), -(-width // side)
                grid = Grid(rows, columns, carriers if rows * columns > 1 else 0)
                found += [
                    _of_block(f"{name}.blocks.{number}", block, Grid(1, 1, side), grid)
                    for number, block in enumerate(part.blocks)
                    if isinstance(block, HATBlock)
                ]
    if not found:
        raise UsageError(
            "The model has no learned positions: only hierarchical attention has. Leave positions out of --draw."
        )
    return found


def _of_block(name: str, block: HATBlock, window: Grid, carriers: Grid) -> BlockPositions:
    has_carriers = carriers.side > 0
    return BlockPositions(
        name=name,
        window_bias=_bias(block.attention, window),
        carrier_bias=_bias(block.carrier_attention, carriers) if has_carriers else None,
        window_norm=_norm(block.position, window),
        carrier_norm=_norm(block.carrier_position, carriers) if has_carriers else None,
    )


def _bias(attention: nn.Module | None, grid: Grid) -> Tensor | None:
    terms = [] if attention is None else [part for part in attention.modules() if isinstance(part, RelativeBias)]
    return terms[0].table(grid).cpu() if terms else None


def _norm(part: nn.Module | None, grid: Grid) -> Tensor | None:
    terms = [] if part is None else [term for term in part.modules() if isinstance(term, PositionTerm)]
    if not terms:
        return None
    lengths = terms[0].compute(grid).norm(dim=-1).cpu()  # t
    blocks = lengths.reshape(grid.rows, grid.columns, grid.side, grid.side)
    return blocks.transpose(1, 2).reshape(grid.sides)  # rows side columns side
