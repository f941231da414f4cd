"""Large pictures as overlapping tiles, each prepared as a picture of its own."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybridvit.batch import Frame
from hybridvit.card import MIN_SIDE_PX
from hybridvit.errors import UsageError

OVERLAP, MOST_OVERLAP = 0.2, 0.9


class Tile(NamedTuple):
    """A part of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int
    core: tuple[int, int, int, int]
    """Left, top, right, bottom of what this tile alone decides: the cores of all tiles fill the picture, and reach to
    the middle of what two tiles share, so that nothing is decided at the edge of a tile."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.left + self.width, self.top + self.height


class TilePart(NamedTuple):
    """What the model answers to one tile."""

    tile: Tile
    outputs: Mapping[str, Any]  # a batch of one
    frame: Frame  # where the input lies in the tile


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a picture is cut. Raises UsageError for sides and overlaps that are none."""

    side: int  # of a tile, in pixels of the upright picture
    overlap: float = OVERLAP  # the least that neighbours share, as a part of the side

    def __post_init__(self) -> None:
        if self.side < MIN_SIDE_PX:
            raise UsageError(f"--tile is {self.side}, but it must be at least {MIN_SIDE_PX} pixels.")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise UsageError(
                f"--overlap is {self.overlap:g}, but it must be from 0 to {MOST_OVERLAP}, a part of a tile."
            )

    def cuts(self, size: tuple[int, int]) -> bool:
        """Whether a picture of that width and height is more than one tile."""
        return max(size) > self.side

    def tiles(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of a picture of that width and height, row by row: all of one size, evenly spread."""
        columns, rows = (self._spans(length) for length in size)
        return [
            Tile(left, top, min(self.side, size[0]), min(self.side, size[1]), (first, upper, last, lower))
            for top, upper, lower in rows
            for left, first, last in columns
        ]

    def _spans(self, length: int) -> list[tuple[int, int, int]]:
        """Start, first and last pixel of the core of the tiles along one axis."""
        side = min(self.side, length)
        stride = max(1, math.floor(side * (1 - self.overlap)))
        count = math.ceil((length - side) / stride) + 1
        starts = [round(place * (length - side) / max(1, count - 1)) for place in range(count)]
        borders = [(start + side + following) // 2 for start, following in itertools.pairwise(starts)]
        return list(zip(starts, [0, *borders], [*borders, length], strict=True))


def tiling_of(tile: int | None, overlap: float | None) -> Tiling | None:
    """What options ask for. Raises UsageError as `Tiling`, and for an overlap of no tiles."""
    if tile is None and overlap is not None:
        raise UsageError(f"--overlap is {overlap:g}, but there are no tiles. Give --tile too, their side in pixels.")
    return None if tile is None else Tiling(side=tile, overlap=OVERLAP if overlap is None else overlap)
