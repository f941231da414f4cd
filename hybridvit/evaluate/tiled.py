"""What a model answers to a large picture: its answers to overlapping tiles, joined by the task."""

from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np
from PIL import Image

from hybridvit.card import ModelCard
from hybridvit.data.preprocess import frame_of, preprocess
from hybridvit.data.tiles import Tile, TilePart, Tiling
from hybridvit.task import Outputs, Task


def tiled(
    picture: Image.Image,
    tiling: Tiling,
    answer: Callable[[np.ndarray], Outputs],
    task: Task,
    card: ModelCard,
    *,
    at_once: int,
) -> Outputs:
    """A batch of one, as if the upright RGB picture itself had been the input.

    `answer` is given `at_once` tiles (n c h w), each prepared as the card says of pictures.
    """
    with closing(_parts(picture, tiling, answer, card, at_once)) as parts:
        return task.joined(parts, (picture.height, picture.width), card)


def _parts(
    picture: Image.Image, tiling: Tiling, answer: Callable[[np.ndarray], Outputs], card: ModelCard, at_once: int
) -> Generator[TilePart, None, None]:
    tiles = tiling.tiles(picture.size)
    frame = frame_of((tiles[0].width, tiles[0].height), card.preprocessing)  # they are all of one size
    for start in range(0, len(tiles), at_once):
        group = tiles[start : start + at_once]
        outputs = answer(np.stack([_input(picture, tile, card) for tile in group]))
        for place, tile in enumerate(group):
            yield TilePart(tile, {name: values[place : place + 1] for name, values in outputs.items()}, frame)


def _input(picture: Image.Image, tile: Tile, card: ModelCard) -> np.ndarray:
    return preprocess(picture.crop(tile.box), card.preprocessing)
