"""Masks as run lengths, COCO's way, and as pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridvit.errors import UsageError

RLE = dict[str, Any]
"""{"size": [height, width], "counts": bytes}: the lengths of runs down the columns, compressed as COCO does."""


def coco_package() -> Any:
    """faster-coco-eval, which reads masks and judges answers; worth asking for before the work.

    Raises UsageError without it.
    """
    try:
        import faster_coco_eval
    except ImportError as error:
        raise UsageError(
            'Detection needs the package faster-coco-eval. Run: pip install "hybridvit[detection]".'
        ) from error
    return faster_coco_eval


def mask_functions() -> Any:
    """Its functions of masks. Raises UsageError without it."""
    return coco_package().mask


def encode(mask: np.ndarray) -> RLE:
    """The run lengths of a mask, h w."""
    return mask_functions().encode(np.asfortranarray(mask, dtype=np.uint8))


def decode(rles: Sequence[RLE]) -> np.ndarray:
    """The masks, uint8, n h w, of run lengths of one size."""
    return np.moveaxis(mask_functions().decode(list(rles)), -1, 0)  # h w n -> n h w


def area(rle: RLE) -> int:
    """Its pixels."""
    return int(mask_functions().area(rle))


def box_of(rle: RLE) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a mask with pixels, half open."""
    left, top, width, height = (float(value) for value in mask_functions().toBbox(rle))
    return left, top, left + width, top + height


def of_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> RLE:
    """The union of polygons [x0, y0, x1, y1, ...] in a picture of that width and height."""
    functions = mask_functions()
    parts = functions.frPyObjects([list(map(float, polygon)) for polygon in polygons], size[1], size[0])
    return functions.merge(parts)


def of_box(box: Sequence[float], size: tuple[int, int]) -> RLE:
    """The pixels of a box in a picture of that width and height."""
    left, top, right, bottom = box
    return of_polygons([[left, top, right, top, right, bottom, left, bottom]], size)


def of_counts(counts: Sequence[int], size: Sequence[int]) -> RLE:
    """From lengths that are not compressed; size is (height, width)."""
    return mask_functions().frPyObjects({"size": list(size), "counts": list(counts)}, *size)


def turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    """A mask of the stored picture (h w) as it lies in the upright one."""
    turns = {
        2: lambda m: m[:, ::-1],
        3: lambda m: m[::-1, ::-1],
        4: lambda m: m[::-1],
        5: lambda m: m.T,
        6: lambda m: np.rot90(m, -1),
        7: lambda m: np.rot90(m, 2).T,
        8: lambda m: np.rot90(m),
    }
    return turns[orientation](mask) if orientation in turns else mask


def turned_boxes(boxes: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Boxes (n 4: left, top, right, bottom) of the stored picture, of that width and height, in the upright one."""
    width, height = size
    left, top, right, bottom = boxes.T
    mirrored, upside_down = (width - right, width - left), (height - bottom, height - top)
    across = {2: mirrored, 3: mirrored, 5: (top, bottom), 6: upside_down, 7: upside_down, 8: (top, bottom)}
    down = {3: upside_down, 4: upside_down, 5: (left, right), 6: (left, right), 7: mirrored, 8: mirrored}
    x, y = across.get(orientation, (left, right)), down.get(orientation, (top, bottom))
    return np.stack((x[0], y[0], x[1], y[1]), axis=1)
