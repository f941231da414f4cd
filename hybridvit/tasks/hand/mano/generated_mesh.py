"""The mesh of the generated hand, counted as MANO's: a sheet of 778 vertices with 16 open edges at the wrist.

A ring of 16 vertices at the wrist, seven of 28 around the palm, then tubes of 10 around the fingers. The last ring of
the palm and three more vertices between the fingers are where these begin; the thumb begins in a hole of the palm.
Every such sheet has 1538 faces: V - E + F = 1, and 3 F = 2 E - 16.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hybridvit.tasks.hand.mano.generated_fingers import FINGERS, Finger
from hybridvit.tasks.hand.mano.generated_surface import distance, gradient

WRIST_RING, PALM_RINGS, COLUMNS = 16, 7, 12  # twelve columns and two rows of cells across the palm: three by finger
PALM_RING, FINGER_RING = 2 * COLUMNS + 4, 10
WRIST_X = 22.0  # mm
HOLE = (1, 4)  # rings between which the thumb begins
ROUNDS, STEPS = 6, 4
RELAX, RELAX_FINGERS, TOWARDS_SURFACE = 0.5, 0.025, 0.7  # shares of a step

Loop = list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """Vertices (v 3, mm), faces (f 3) and to which finger each vertex belongs: -1 to the palm."""

    points: np.ndarray
    faces: np.ndarray
    finger: np.ndarray
    tips: np.ndarray


class _Builder:
    """Collects vertices and faces."""

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.finger: list[int] = []
        self.faces: list[tuple[int, int, int]] = []

    def add(self, points: np.ndarray, finger: int = -1) -> Loop:
        first = len(self.points)
        self.points += list(points)
        self.finger += [finger] * len(points)
        return list(range(first, len(self.points)))

    def zip(self, near: Loop, far: Loop) -> None:
        """A strip between two closed loops of any lengths that run in the same direction."""
        i = j = 0
        while i < len(near) or j < len(far):
            a, b = near[i % len(near)], far[j % len(far)]
            if (i + 1) * len(far) <= (j + 1) * len(near):
                i += 1
                self.faces.append((a, near[i % len(near)], b))
            else:
                j += 1
                self.faces.append((a, far[j % len(far)], b))


def generated_mesh() -> Mesh:
    """The mesh, drawn onto the surface of `generated_surface`; the same in every call."""
    builder = _Builder()
    wrist = builder.add(_around(WRIST_RING) * (0, 19, 30) + (WRIST_X, 0, 0))
    rings = [builder.add(_palm_ring(number)) for number in range(1, PALM_RINGS + 1)]
    builder.zip(wrist, rings[0])
    _join_palm(builder, rings)
    last = [builder.points[vertex] for vertex in rings[-1]]
    webs = builder.add(np.array([(last[column] + last[_below(column)]) / 2 for column in (3, 6, 9)]))
    loops = [_thumb_loop(rings), *(_finger_loop(rings[-1], webs, number) for number in range(4))]
    tips = [
        _add_finger(builder, finger, number, loop)
        for number, (finger, loop) in enumerate(zip(FINGERS, loops, strict=True))
    ]
    mesh = _without_unused(builder, np.array(tips))
    return replace(mesh, points=_on_surface(mesh))


def _below(column: int) -> int:
    """Where a ring of the palm has the vertex below the one on top of a column."""
    return 2 * COLUMNS + 2 - column


def _around(number: int) -> np.ndarray:
    """Points (x = 0) of a circle from the thumb's side over the back of the hand: n 3."""
    angles = 2 * np.pi * (np.arange(number) + 0.5) / number
    return np.stack((np.zeros(number), np.sin(angles), np.cos(angles)), axis=1)


def _palm_ring(number: int) -> np.ndarray:
    """Where a ring of the palm begins before it is drawn onto the surface: a box that narrows to the wrist."""
    share = number / PALM_RINGS
    columns = np.arange(COLUMNS + 1)
    across = share * np.interp(columns, (0, 3, 6, 9, 12), (31, 12, -8, -27.5, -44))
    across = across + (1 - share) * np.linspace(27, -27, COLUMNS + 1)
    end = np.interp(columns, (0, 1.5, 4.5, 7.5, 10.5, 12), (-84, -88, -92, -87, -77, -72))
    along = WRIST_X + share * (end - WRIST_X)
    half = (15 - 5 * share) * (1 - 0.45 * np.abs(columns / 6 - 1) ** 4)
    top, bottom = np.stack((along, half, across), axis=1), np.stack((along, -half, across), axis=1)
    sides = (top[[0, -1]] + bottom[[0, -1]]) / 2 + np.array([[0, 0, 3], [0, 0, -3]])
    return np.concatenate((top, sides[1:], bottom[::-1], sides[:1]))


def _join_palm(builder: _Builder, rings: list[Loop]) -> None:
    """Cells between the rings of the palm, but for those of the hole at the thumb's side."""
    for number, (near, far) in enumerate(pairwise(rings), start=1):
        for place in range(PALM_RING):
            if HOLE[0] <= number < HOLE[1] and place >= _below(0):
                continue
            a, b, c, d = near[place], near[(place + 1) % PALM_RING], far[(place + 1) % PALM_RING], far[place]
            builder.faces += [(a, b, d), (b, c, d)]


def _thumb_loop(rings: list[Loop]) -> Loop:
    """The border of the hole, as `_finger_loop`."""
    first, *between, last = rings[HOLE[0] - 1 : HOLE[1]]
    middle, bottom = PALM_RING - 1, _below(0)
    top_side = [first[0], *(ring[0] for ring in between), last[0]]
    bottom_side = [last[bottom], *(ring[bottom] for ring in reversed(between)), first[bottom]]
    return [first[middle], *top_side, last[middle], *bottom_side]


def _finger_loop(last: Loop, webs: Loop, number: int) -> Loop:
    """Where a finger begins: middle of one side, top, middle of the other, bottom."""
    columns = range(3 * number, 3 * number + 4)
    sides = [last[PALM_RING - 1], *webs, last[COLUMNS + 1]]
    bottom = [last[_below(column)] for column in reversed(columns)]
    return [sides[number], *(last[column] for column in columns), sides[number + 1], *bottom]


def _add_finger(builder: _Builder, finger: Finger, number: int, loop: Loop) -> int:
    """A tube from a loop of the palm to the tip, whose vertex is returned."""
    up = np.array([0.0, 1.0, 0.0])
    up -= (up @ finger.axis) * finger.axis
    up /= np.linalg.norm(up)
    side = np.cross(up, finger.axis)
    angles = 2 * np.pi * np.arange(FINGER_RING)[:, None] / FINGER_RING
    circle = np.cos(angles) * side + np.sin(angles) * up
    for place in finger.ring_places():
        ring = builder.add(finger.joints[0] + place * finger.axis + finger.radius_at(place) * circle, number)
        builder.zip(loop, ring)
        loop = ring
    (tip,) = builder.add(finger.joints[3:], number)
    builder.faces += [(loop[place - 1], loop[place], tip) for place in range(FINGER_RING)]
    return tip


def _without_unused(builder: _Builder, tips: np.ndarray) -> Mesh:
    """Without the two vertices inside the hole."""
    points, faces, finger = np.array(builder.points), np.array(builder.faces), np.array(builder.finger)
    used = np.zeros(len(points), bool)
    used[faces] = True
    new = np.cumsum(used) - 1
    return Mesh(points=points[used], faces=new[faces], finger=finger[used], tips=new[tips])


def _on_surface(mesh: Mesh) -> np.ndarray:
    """The vertices evened out and drawn onto the surface, in turns; the wrist's keep their x."""
    number = len(mesh.points)
    joined = np.zeros((number, number))
    joined[mesh.faces, np.roll(mesh.faces, 1, axis=1)] = 1
    joined = np.maximum(joined, joined.T)
    joined /= joined.sum(1, keepdims=True)
    share = np.where(mesh.finger < 0, RELAX, RELAX_FINGERS)
    share[:WRIST_RING] = 0
    points = mesh.points
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            points = points + share[:, None] * (joined @ points - points)
        for _ in range(STEPS):
            here = distance(points)
            slope = gradient(points, here)
            slope[:WRIST_RING, 0] = 0
            step = TOWARDS_SURFACE * here / np.maximum((slope**2).sum(1), 0.1)
            points = points - step[:, None] * slope
    return points
