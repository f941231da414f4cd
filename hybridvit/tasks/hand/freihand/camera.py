"""Where points of space are in a picture, before and after it is turned, scaled and cut: all in plane coordinates.

Plane coordinates are in pixels and begin at the corner of the picture, so that the centre of its first pixel is at
(0.5, 0.5). Cameras look along +z, with x to the right and y down. Needs NumPy alone.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridvit.batch import Frame

_SMALLEST_SCALE = 1e-3  # per metre: a hand that is nowhere to be seen, as a model may say that has learnt nothing


def from_corner(camera: np.ndarray) -> np.ndarray:
    """The matrix (3 3) for plane coordinates, of a camera for such that are 0 in the centre of the first pixel."""
    moved = camera.astype(np.float64)
    moved[:2] += 0.5 * moved[2]
    return moved


def projected(camera: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Plane coordinates (... n 2) of points in space (... n 3) under a camera (... 3 3)."""
    rays = points @ np.swapaxes(camera, -1, -2)
    return rays[..., :2] / rays[..., 2:]


def about_z(angle: float) -> np.ndarray:
    """The rotation (3 3) about the axis of the camera, by an angle in radians: from x to y, which is clockwise."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """How a crop shows a picture. Picture, points and camera agree: each point lies where the picture shows it."""

    matrix: np.ndarray  # 3 3: from the plane of the picture to that of the crop
    size: tuple[int, int]  # height, width of the crop
    angle: float = 0.0  # radians, by which `matrix` turns

    def camera(self, camera: np.ndarray) -> np.ndarray:
        """The camera of the crop: no triangle where the picture is turned and both focal lengths are not the same."""
        return self.matrix @ camera @ about_z(self.angle).T

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points (n 3) in the axes of the camera of the crop: turned with the picture, never scaled or moved."""
        return points @ about_z(self.angle).T

    @property
    def scale(self) -> float:
        """Pixels of the crop over those of the picture."""
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:2, :2]))))


def upright_view(frame: Frame) -> View:
    """The view of a crop that is resized but not turned: of everything but training."""
    left, top, width, height = frame.crop
    down, across = frame.input_size[0] / height, frame.input_size[1] / width
    matrix = np.array([[across, 0.0, -left * across], [0.0, down, -top * down], [0.0, 0.0, 1.0]])
    return View(matrix=matrix, size=frame.input_size)


def turned_view(
    picture_size: tuple[int, int], size: tuple[int, int], *, angle: float, part: float, shift: tuple[float, float]
) -> View:
    """The view of a square part of a picture (height, width), turned by an angle in radians.

    The side of the part is `part` times the shorter side of the picture, and its centre lies `shift` (right, down) of
    that side from the centre of the picture.
    """
    side = min(picture_size) * part
    centre = np.array([picture_size[1] / 2 + shift[0] * side, picture_size[0] / 2 + shift[1] * side])
    matrix = about_z(angle)
    matrix[:2, :2] *= np.array([[size[1]], [size[0]]]) / side
    matrix[:2, 2] = np.array([size[1], size[0]]) / 2 - matrix[:2, :2] @ centre
    return View(matrix=matrix, size=size, angle=angle)


def normalised(points: Any, size: tuple[int, int]) -> Any:
    """Plane coordinates (... 2) of a crop (height, width) as -1 at its left and upper edge, 1 at the others."""
    return 2 * points / np.array([size[1], size[0]], np.float64) - 1


def root_position(weak: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where the root is (3, metres), from the answer of a weak perspective and the camera (3 3) of the crop.

    `weak` is (s, tx, ty): a point at X from the root is at s X_xy + t in normalised coordinates, s per metre. The depth
    is that at which the camera shows a metre in that size: an estimate, for weak perspective knows but one depth.
    """
    scale, *place = (float(each) for each in weak)
    focal = math.sqrt(abs(float(np.linalg.det(camera[:2, :2].astype(np.float64)))))
    depth = 2 * focal / (max(scale, _SMALLEST_SCALE) * math.sqrt(size[0] * size[1]))
    in_plane = (np.array(place) + 1) / 2 * np.array([size[1], size[0]])
    return np.linalg.solve(camera.astype(np.float64), np.array([*in_plane, 1.0])) * depth
