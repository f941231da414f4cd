"""Detections of a large picture, from those of its tiles."""

from collections.abc import Iterable

import numpy as np

from hybridvit.data.tiles import Tile, TilePart
from hybridvit.task import Outputs
from hybridvit.tasks.detect.overlap import areas, overlap, shared
from hybridvit.tasks.detect.result import BOXES, LABELS, SCORES, in_picture

SAME = 0.5  # IoU from which two boxes of one class are one object; the surer is kept
WITHIN = 0.7  # share of a box that a tile has cut, from which it is a part of one that another tile shows
EDGE_PX = 2.0  # from the edge of a tile: as near lies a box that it cuts
MOST = 1000  # detections of a picture


def joined(parts: Iterable[TilePart], picture_size: tuple[int, int]) -> Outputs:
    """Detections of all tiles in the picture (height, width), without those that are there twice, the surest first.

    Objects in the overlap of two tiles are found in both. Where a tile cuts one, its part is dropped in favour of a
    box around it from another tile, whichever is surer; then the surest of all boxes that are the same is kept.
    """
    found: dict[str, list[np.ndarray]] = {}
    cut: list[np.ndarray] = []
    tiles: list[np.ndarray] = []
    fewest = 0
    for number, (tile, outputs, frame) in enumerate(parts):
        rows = {name: np.asarray(values)[0] for name, values in outputs.items()}
        fewest = len(rows[SCORES])
        kept = rows[SCORES] > 0
        rows = {name: values[kept] for name, values in rows.items()}
        boxes = in_picture(rows[BOXES].astype(np.float64), frame)
        cut.append(_cut(boxes, tile, picture_size))
        tiles.append(np.full(len(boxes), number))
        rows[BOXES] = boxes + np.array([tile.left, tile.top] * 2)
        for name, values in rows.items():
            found.setdefault(name, []).append(values)
    arrays = {name: np.concatenate(values) for name, values in found.items()}
    kept = _surest(arrays[BOXES], arrays[SCORES], arrays[LABELS], np.concatenate(cut), np.concatenate(tiles))
    empty = max(0, fewest - len(kept))  # rows with score 0, so that there are as many as of an ordinary picture
    return {
        name: np.concatenate([values[kept], np.zeros((empty, *values.shape[1:]), values.dtype)])[None]
        for name, values in arrays.items()
    }


def _cut(boxes: np.ndarray, tile: Tile, picture_size: tuple[int, int]) -> np.ndarray:
    """Which boxes (n 4, in the tile) reach an edge of it that is none of the picture."""
    left, top, right, bottom = tile.box
    inner = np.array([left > 0, top > 0, right < picture_size[1], bottom < picture_size[0]])
    size = np.array([tile.width, tile.height])
    near = np.concatenate([boxes[:, :2] <= EDGE_PX, boxes[:, 2:] >= size - EDGE_PX], axis=1)
    return (near & inner).any(1)


def _surest(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, cut: np.ndarray, tiles: np.ndarray
) -> np.ndarray:
    """The places of those that are kept, by falling score."""
    kept: list[int] = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        places = places[np.argsort(-scores[places], kind="stable")][:MOST]
        places = places[~_parts(boxes[places], cut[places], tiles[places])]
        while len(places):
            kept.append(int(places[0]))
            places = places[1:][overlap(boxes[places[:1]], boxes[places[1:]])[0] <= SAME]
    order = np.array(kept, np.int64)
    return order[np.argsort(-scores[order], kind="stable")][:MOST]


def _parts(boxes: np.ndarray, cut: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Which boxes a tile has cut that lie within a larger one of another tile."""
    whole = areas(boxes)
    is_larger = (tiles[:, None] != tiles) & (whole > whole[:, None])
    is_within = shared(boxes, boxes) > WITHIN * whole[:, None]
    return cut & (is_larger & is_within).any(1)
