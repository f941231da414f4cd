"""How large pictures are cut: every pixel is decided once, and never at the edge of a tile."""

from itertools import pairwise

import numpy as np
import pytest

from hybridvit.data.tiles import Tiling, tiling_of
from hybridvit.errors import UsageError


@pytest.mark.parametrize("size", [(600, 400), (103, 10), (102, 102), (250, 205), (33, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_cores_fill_the_picture_once_and_tiles_stay_in_it(size: tuple[int, int], overlap: float) -> None:
    counts = np.zeros((size[1], size[0]), np.uint8)
    tiles = Tiling(side=102, overlap=overlap).tiles(size)
    for tile in tiles:
        left, top, right, bottom = tile.core
        counts[top:bottom, left:right] += 1
        assert 0 <= tile.box[0] <= left < right <= tile.box[2] <= size[0]
        assert 0 <= tile.box[1] <= top < bottom <= tile.box[3] <= size[1]
        assert (tile.width, tile.height) == (min(102, size[0]), min(102, size[1]))
    assert (counts == 1).all()
    assert (len(tiles) == 1) == (not Tiling(side=102).cuts(size))


def test_neighbours_share_what_is_asked_for_and_each_decides_half() -> None:
    tiles = Tiling(side=100, overlap=0.2).tiles((333, 100))
    shared = [left.box[2] - right.box[0] for left, right in pairwise(tiles)]
    margins = [left.box[2] - left.core[2] for left in tiles[:-1]]
    assert len(tiles) == 4
    assert min(shared) >= 20
    assert min(margins) >= 10


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (16, None, "--tile is 16, but it must be at least 32 pixels"),
        (512, 1.0, r"--overlap is 1, but it must be from 0 to 0\.9"),
        (None, 0.1, r"--overlap is 0\.1, but there are no tiles\. Give --tile too"),
    ],
)
def test_tilings_that_are_none_are_refused(tile: int | None, overlap: float | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiling_of(tile, overlap)
    assert tiling_of(None, None) is None
    assert tiling_of(64, None) == Tiling(side=64, overlap=0.2)
