"""Hierarchical attention over a map of any size (FasterViT, section 3.3)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.folding.as_built import check_unwatched
from hybridvit.folding.foldable import SizeDependent
from hybridvit.models.checks import check_integer
from hybridvit.models.hat.config import HATConfig
from hybridvit.models.hat.position import (
    Grid,
    LogSpacedBias,
    PositionEmbedding,
    PositionTerm,
    relative_bias,
)
from hybridvit.models.hat.residual import FoldedAttention, ResidualAttention, ResidualMLP, WindowPosition
from hybridvit.tracing import Unscriptable, leaf


class HierarchicalAttention(SizeDependent, Unscriptable):
    """Attention inside windows, whose carrier tokens attend to each other across the whole map; a part for any network.

    Input and output are maps (b, dim, h, w) of any height and width, which may differ from call to call. The map is
    padded with zeros at the right and the bottom to whole windows, split into them once, and put together again after
    the last block. Each window has `carrier_size`^2 carriers, pooled from the map (equation 3); in every block they
    attend to the carriers of all windows (equation 4), then to the tokens of their own window (equations 5 to 7). A
    map of a single window needs no carriers and runs without.

    Args:
        dim: channels of the map.
        depth: number of blocks.
        config: windows, carriers, heads and positions.
        drop_path_rates: stochastic depth of each block; none by default.
        pad_small_maps: accept maps with a side smaller than the window.

    Raises:
        UsageError: if the heads do not divide `dim`, there is no block, or `drop_path_rates` are not one per block.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        config: HATConfig,
        *,
        drop_path_rates: Sequence[float] | None = None,
        pad_small_maps: bool = False,
    ) -> None:
        super().__init__()
        check_integer("depth", depth, 1)
        if dim % config.num_heads:
            raise UsageError(f"dim is {dim}, but must be a multiple of num_heads ({config.num_heads}).")
        rates = [0.0] * depth if drop_path_rates is None else list(drop_path_rates)
        if len(rates) != depth:
            raise UsageError(f"drop_path_rates has {len(rates)} entries, but there are {depth} blocks: give one each.")
        self.config, self.pad_small_maps = config, pad_small_maps
        self.has_constants = config.carrier_size > 0 and (
            config.position_embedding or (config.carrier_attention and config.relative_bias != "none")
        )
        self.only_size = None
        self.carriers: nn.Module | None = None
        if config.carrier_size and config.carrier_source == "map":
            self.carriers = MapCarriers(dim, config)
        elif config.carrier_size and config.carrier_source == "constant":
            self.carriers = ConstantCarriers(dim, config)
        self.blocks = nn.ModuleList(HATBlock(dim, config, rate) for rate in rates)
        last = self.blocks[-1]
        for block in self.blocks:
            assert isinstance(block, HATBlock)
            if isinstance(block.carrier_attention, ResidualAttention):
                block.carrier_attention.propagates = config.carrier_source == "tokens" or (
                    config.propagate and block is last
                )

    @leaf
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        config, (height, width) = self.config, x.shape[-2:]
        side = config.window_size
        if self.only_size is not None and (height, width) != self.only_size:
            raise UsageError(
                f"The map is {height}x{width}, its positions are fixed for {self.only_size[0]}x{self.only_size[1]}. "
                "Fold the model without image_size for images of any size."
            )
        if not self.pad_small_maps and (height < side or width < side):
            raise UsageError(
                f"The map is {height}x{width}, but the window {side}x{side}. Use a smaller window_size, a larger map, "
                "or pad_small_maps=True to fill the window with zeros."
            )
        rows, columns = (height + side - 1) // side, (width + side - 1) // side  # ONNX divides towards zero
        x = pad_to(x, rows * side, columns * side)
        tokens = split_windows(x, rows, columns, side)  # (b rows columns) (side side) c
        carries = config.carrier_size > 0 and rows * columns > 1
        carriers = self.carriers(x, rows, columns) if carries and self.carriers is not None else None
        grids = Grid(1, 1, side), Grid(rows, columns, config.carrier_size if carries else 0)
        windows = WindowLayout(x.shape[0], *grids)
        for block in self.blocks:
            tokens, carriers = block(tokens, carriers, windows)
        if config.propagate and carriers is not None:
            last = self.blocks[-1]
            assert isinstance(last, HATBlock)
            tokens = last.propagate(tokens, carriers, windows)
        if self.training and config.carrier_size and not carries:
            tokens = tokens + 0 * sum(parameter.sum() for parameter in self._carrier_parameters())
        return merge_windows(tokens, windows, height, width)

    @torch.no_grad()
    def for_map(self, height: int, width: int) -> "HierarchicalAttention":
        """A copy for maps of this size alone, in which the carriers' positions are constants as well."""
        side = self.config.window_size
        grid = Grid(-(-height // side), -(-width // side), self.config.carrier_size)
        constants: dict[int, object] = {}
        for block in self.blocks:
            assert isinstance(block, HATBlock)
            for part in (block.carrier_position, block.carrier_attention):
                for term in () if part is None else part.modules():
                    if isinstance(term, PositionTerm):
                        check_unwatched(term)
                        constants[id(term)] = term.fixed(grid)
        fixed = copy.deepcopy(self, constants)
        fixed.only_size = (height, width)
        return fixed

    def _carrier_parameters(self) -> list[nn.Parameter]:
        """What a map of a single window leaves unused; DDP wants a gradient for each of them all the same."""
        parts: list[nn.Module | None] = [self.carriers]
        for block in self.blocks:
            assert isinstance(block, HATBlock)
            parts += [block.carrier_position, block.carrier_attention, block.carrier_mlp]
        return [parameter for part in parts if part is not None for parameter in part.parameters()]


@dataclass(frozen=True)
class WindowLayout:
    """How the tokens of a batch lie."""

    num_images: int
    window: Grid  # the places of one window's tokens
    carriers: Grid  # of one image's carriers, a block per window; of side 0 without


class HATBlock(nn.Module):
    """One block: carriers among themselves, then each window with its own (FasterViT, equations 4 to 7)."""

    def __init__(self, dim: int, config: HATConfig, drop_path_rate: float) -> None:
        super().__init__()
        self.config = config
        size = config.window_size
        self.position: nn.Module | None = None
        if config.position_embedding:
            self.position = WindowPosition(PositionEmbedding(dim, config.position_hidden), size)
        self.attention: nn.Module = ResidualAttention(
            dim, config, drop_path_rate, bias=relative_bias(config), window_size=size
        )
        self.mlp: nn.Module = ResidualMLP(dim, config, drop_path_rate)
        self.carrier_position: PositionTerm | None = None
        self.carrier_attention: nn.Module | None = None
        self.carrier_mlp: nn.Module | None = None
        if config.carrier_size:
            if config.position_embedding:
                self.carrier_position = PositionEmbedding(dim, config.position_hidden)
            self.carrier_mlp = ResidualMLP(dim, config, drop_path_rate)
            if config.carrier_attention:
                has_bias = config.relative_bias != "none"
                bias = LogSpacedBias(config.num_heads, config.position_hidden) if has_bias else None
                self.carrier_attention = ResidualAttention(dim, config, drop_path_rate, bias=bias)

    def forward(
        self, tokens: Float[Tensor, "n t c"], carriers: Float[Tensor, "n l c"] | None, windows: WindowLayout
    ) -> tuple[Float[Tensor, "n t c"], Float[Tensor, "n l c"] | None]:
        if self.position is not None:
            tokens = tokens + self.position(windows.window, tokens.dtype)
        if not windows.carriers.side:
            return self.mlp(self.attention(tokens, windows.window, windows.num_images), windows.num_images), None
        anew = self.config.carrier_source == "tokens"
        if anew:
            carriers = pool_tokens(tokens, windows)
        assert carriers is not None
        carriers = self._exchange(carriers, windows)
        num_carriers = windows.carriers.side**2
        both = torch.cat((carriers, tokens), 1)  # n (l t) c
        both = self.attention(both, windows.window, windows.num_images, num_carriers)
        both = self.mlp(both, windows.num_images)
        carriers, tokens = both[:, :num_carriers], both[:, num_carriers:]
        return (self.propagate(tokens, carriers, windows), None) if anew else (tokens, carriers)

    def _exchange(self, carriers: Float[Tensor, "n l c"], windows: WindowLayout) -> Float[Tensor, "n l c"]:
        """The carriers of all windows of an image among themselves, in the order of the windows."""
        shape, (height, width) = carriers.shape, windows.carriers.sides
        carriers = carriers.reshape(windows.num_images, height * width, shape[-1])  # b (rows columns l) c
        if self.carrier_position is not None:
            carriers = carriers + self.carrier_position(windows.carriers, carriers.dtype)
        if self.carrier_attention is not None:
            carriers = self.carrier_attention(carriers, windows.carriers, windows.num_images)
        assert self.carrier_mlp is not None
        return self.carrier_mlp(carriers, windows.num_images).reshape(shape)

    def propagate(
        self, tokens: Float[Tensor, "n t c"], carriers: Float[Tensor, "n l c"], windows: WindowLayout
    ) -> Float[Tensor, "n t c"]:
        """Each token plus the nearest carrier of its window, scaled as the carriers' attention (equation 8)."""
        spread = carriers.index_select(1, nearest_carrier(windows, carriers.device))
        attention = self.carrier_attention
        assert isinstance(attention, ResidualAttention | FoldedAttention | None)
        scale = None if attention is None else attention.layer_scale
        return tokens + spread if scale is None else torch.addcmul(tokens, spread, scale)


class MapCarriers(nn.Module):
    """Carriers pooled from the map behind a depthwise 3x3 convolution (FasterViT, equation 3)."""

    def __init__(self, dim: int, config: HATConfig) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Float[Tensor, "b c h w"], rows: int, columns: int) -> Float[Tensor, "n l c"]:
        size, window = self.config.carrier_size, self.config.window_size
        down, across = (averaging(blocks, window, size, x) for blocks in (rows, columns))
        pooled = down @ self.conv(x) @ across.T  # b c (rows size) (columns size)
        return split_windows(pooled, rows, columns, size)


class ConstantCarriers(nn.Module):
    """Carriers that start as one learned vector (ablation of FasterViT, Table S.1)."""

    def __init__(self, dim: int, config: HATConfig) -> None:
        super().__init__()
        self.config = config
        self.start = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "b c h w"], rows: int, columns: int) -> Float[Tensor, "n l c"]:
        return self.start.expand(x.shape[0] * rows * columns, self.config.carrier_size**2, -1)


def averaging(blocks: int, window: int, size: int, like: Tensor) -> Float[Tensor, "out side"]:
    """The matrix that pools one axis of `blocks` windows to `size` carriers each.

    As average pooling with stride floor(side / out) and the kernel that then reaches the end, which overlaps and is not
    adaptive pooling. A matrix and not a pooling layer: its kernel depends on the image and would be fixed in a graph.
    """
    stride = window // size
    out, side = blocks * size, blocks * window
    kernel = side - (out - 1) * stride
    start = torch.arange(out, device=like.device)[:, None] * stride
    place = torch.arange(side, device=like.device)
    return ((place >= start) & (place < start + kernel)).to(like.dtype) / kernel


def pool_tokens(tokens: Float[Tensor, "n t c"], windows: WindowLayout) -> Float[Tensor, "n l c"]:
    """The carriers of each window as means of its own tokens."""
    axis = averaging(1, windows.window.side, windows.carriers.side, tokens)
    return torch.kron(axis, axis) @ tokens


def nearest_carrier(windows: WindowLayout, device: torch.device) -> Int[Tensor, "t"]:
    """For each token of a window, the number of the carrier above it: floor(i * carriers / side) per axis."""
    side, carriers = windows.window.side, windows.carriers.side
    place = torch.arange(side, device=device) * carriers // side
    return (place[:, None] * carriers + place).flatten()


def pad_to(x: Num[Tensor, "b c h w"], height: int, width: int) -> Num[Tensor, "b c ph pw"]:
    """Zeros at the right and the bottom up to a size."""
    missing = (height - x.shape[-2], width - x.shape[-1])
    if torch.compiler.is_compiling() or any(missing):  # in a graph no choice is made by the size
        return F.pad(x, (0, missing[1], 0, missing[0]))
    return x


def split_windows(x: Float[Tensor, "b c h w"], rows: int, columns: int, side: int) -> Float[Tensor, "n t c"]:
    """A map of `rows` x `columns` windows as a sequence of tokens per window."""
    pixels = (
        x.permute(0, 2, 3, 1).unflatten(2, (columns, side)).unflatten(1, (rows, side))
    )  # b rows side columns side c
    # a copy in any case: to ask whether one is needed would put conditions on the size in a graph
    windows = pixels.transpose(2, 3).clone(memory_format=torch.contiguous_format)  # b rows columns side side c
    return windows.flatten(0, 2).flatten(1, 2)  # n t c


def merge_windows(
    tokens: Float[Tensor, "n t c"], windows: WindowLayout, height: int, width: int
) -> Float[Tensor, "b c h w"]:
    """The map of `height` x `width` whose padded form `split_windows` split.

    Through an index, which leaves the padding out in the same step, and puts no condition on the size in a graph.
    """
    side, device = windows.window.side, tokens.device
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    window = row // side * windows.carriers.columns + column // side  # h w
    place = (window * side + row % side) * side + column % side
    tokens = tokens.unflatten(0, (windows.num_images, windows.carriers.rows * windows.carriers.columns))  # b n t c
    pixels = tokens.flatten(1, 2).index_select(1, place.flatten())  # b hw c
    return pixels.unflatten(1, (height, width)).permute(0, 3, 1, 2)  # b c h w
