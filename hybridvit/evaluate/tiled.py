"""What a model answers to a large picture: its answers to overlapping tiles, joined by the task."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.preprocess import as_picture, frame_of, preprocess
from hybridvit.data.tiles import Tile, TilePart, Tiling
from hybridvit.errors import UsageError
from hybridvit.task import Outputs, Task

if TYPE_CHECKING:
    from hybridvit.evaluate.run import Answerer  # which needs torch


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


def checked(task: Task, path: object) -> None:
    """Raise UsageError for the model at `path` if its task does not join tiles."""
    if not task.joins_tiles:
        raise UsageError(
            f"{path} is a model of the task '{task.name}', whose answer is to a whole picture, so answers to tiles "
            "cannot be joined. Leave --tile out."
        )


def in_own_size(card: ModelCard) -> ModelCard:
    """The card for samples that `answering_by_tiles` is shown: prepared in the size of their pictures."""
    preprocessing = replace(card.preprocessing, crop_mode="original", crop_fraction=1.0, fit_px=None)
    return replace(card, preprocessing=preprocessing)


def answering_by_tiles(
    tiling: Tiling, answer: Callable[[np.ndarray], Outputs], task: Task, card: ModelCard, *, at_once: int
) -> "Answerer":
    """An answerer for `evaluate`, of batches of one that are `in_own_size`."""

    def answer_whole(batch: Batch) -> Outputs:
        (image,) = batch.inputs.cpu().numpy()
        return tiled(as_picture(image, card.preprocessing), tiling, answer, task, card, at_once=at_once)

    return answer_whole


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
