"""Where the names of points go so that they cover neither each other nor the points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "center", "right"]
Level = Literal["top", "middle", "bottom"]

DIRECTIONS: tuple[tuple[Side, Level], ...] = (
    ("right", "middle"), ("left", "middle"), ("center", "top"), ("center", "bottom"),
    ("right", "top"), ("left", "top"), ("right", "bottom"), ("left", "bottom"),
)  # fmt: skip
PAD_PX = 1.0  # around every label
FAR = 0.6  # what a pixel of distance costs, in square pixels of overlap per pixel of the label's height
ON_A_LINE = 25.0  # what each sample of a line under a label costs, in square pixels
OUTSIDE = 8.0  # a square pixel outside the chart, against one that covers another label
MOST_COVERED = 0.06  # of a label that may be left out: beyond this it is

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, y downwards
Size = tuple[float, float]  # width, height in pixels


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a label went: on which side of its point, and how far from the nearest place."""

    side: Side
    level: Level
    distance_px: float
    box: Box


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[Size],
    *,
    must: Sequence[bool],
    radii: Sequence[float],
    area: Size,
    avoid: Sequence[tuple[float, float]] = (),
    gap_px: float = 2.0,
    distances_px: Sequence[float] = (0, 6, 14, 24, 36),
) -> list[Place | None]:
    """A place for each label, or None where it would cover too much.

    `points` are in pixels, y downwards, inside a chart of `area`; `sizes` are those of the labels, (0, 0) for none;
    `radii` those of the marks, from whose edge labels keep `gap_px`; `avoid` samples the lines. Labels that `must` be
    shown are placed first, and placed where they cover least if there is no free place. One pass without going back,
    in the order of `points`.
    """
    marks: list[Box] = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(points, radii, strict=True)]
    taken: list[Box] = []
    places: list[Place | None] = [None] * len(points)
    for index in sorted(range(len(points)), key=lambda index: not must[index]):
        width, height = sizes[index]
        if not width:
            continue
        others = [mark for other, mark in enumerate(marks) if other != index]
        best, least = None, float("inf")
        for distance in distances_px:
            for side, level in DIRECTIONS:
                box = _box(points[index], sizes[index], side, level, radii[index] + gap_px + distance)
                covered = _covered(box, taken, others, area, avoid)
                cost = covered + FAR * height * distance
                if cost < least and (must[index] or covered <= MOST_COVERED * width * height):
                    best, least = Place(side=side, level=level, distance_px=distance, box=box), cost
        places[index] = best
        if best is not None:
            left, top, right, bottom = best.box
            taken.append((left - PAD_PX, top - PAD_PX, right + PAD_PX, bottom + PAD_PX))
    return places


def _box(point: tuple[float, float], size: Size, side: Side, level: Level, gap: float) -> Box:
    (x, y), (width, height) = point, size
    if side != "center" and level != "middle":
        gap *= 0.7  # along both axes
    left = {"left": x - gap - width, "center": x - width / 2, "right": x + gap}[side]
    top = {"top": y - gap - height, "middle": y - height / 2, "bottom": y + gap}[level]
    return left, top, left + width, top + height


def _covered(
    box: Box, taken: Sequence[Box], marks: Sequence[Box], area: Size, avoid: Sequence[tuple[float, float]]
) -> float:
    left, top, right, bottom = box
    total = sum(_overlap(box, other) for other in taken) + sum(_overlap(box, other) for other in marks)
    inside = _overlap(box, (0.0, 0.0, *area))
    outside = (right - left) * (bottom - top) - inside
    on_lines = sum(left <= x <= right and top <= y <= bottom for x, y in avoid)
    return total + OUTSIDE * outside + ON_A_LINE * on_lines


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across * down if across > 0 and down > 0 else 0.0
