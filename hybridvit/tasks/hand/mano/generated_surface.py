"""The surface of the generated hand, as the distance from it: cones with round ends that flow into each other."""

from collections.abc import Iterable

import numpy as np

from hybridvit.tasks.hand.mano.generated_fingers import FINGERS

STEP = 1e-3  # mm, of differences that stand for derivatives
BETWEEN_METACARPALS, BETWEEN_MOUNDS, BETWEEN_PHALANGES, AT_FINGERS = 9.0, 10.0, 2.5, 6.0  # mm over which parts flow

METACARPALS = tuple(  # at the wrist, at the knuckle, radii there
    ((44.0, 0.0, start), finger.joints[0] + np.array([2.0, -1.0, 0.0]), near, far)
    for finger, start, near, far in zip(
        FINGERS[1:], (13.0, 4.5, -4.5, -13.0), (14.0, 14.0, 13.5, 13.0), (11.5, 12.0, 11.5, 10.0), strict=True
    )
)
MOUNDS = (  # of the thumb, of the little finger
    ((4.0, -7.0, 13.0), (-36.0, -12.0, 30.0), 14.0, 13.0),
    ((4.0, -7.0, -14.0), (-58.0, -8.0, -30.0), 13.0, 11.0),
)


def distance(points: np.ndarray) -> np.ndarray:
    """How far points (n 3, mm) lie outside the hand; below zero inside."""
    palm = _joined((_cone(points, *each) for each in METACARPALS), BETWEEN_METACARPALS)
    palm = _joined((palm, *(_cone(points, *each) for each in MOUNDS)), BETWEEN_MOUNDS)
    fingers = np.full(len(points), np.inf)
    for finger in FINGERS:
        ends = finger.joints.copy()
        ends[-1] -= finger.radii[-1] * finger.axis  # the round end reaches the tip
        cones = zip(ends, ends[1:], finger.radii, finger.radii[1:], strict=False)
        fingers = np.minimum(fingers, _joined((_cone(points, *each) for each in cones), BETWEEN_PHALANGES))
    return _joined((palm, fingers), AT_FINGERS)


def gradient(points: np.ndarray, here: np.ndarray) -> np.ndarray:
    """In which direction the distance, `here` at the points, grows, and how fast: n 3."""
    return np.stack([(distance(points + each) - here) / STEP for each in STEP * np.eye(3)], axis=1)


def _cone(points: np.ndarray, start: Iterable[float], end: Iterable[float], near: float, far: float) -> np.ndarray:
    """The distance from balls whose centre and radius go from one to another."""
    start, axis = np.asarray(start), np.asarray(end) - np.asarray(start)
    share = np.clip((points - start) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * axis, axis=1) - (near + share * (far - near))


def _joined(distances: Iterable[np.ndarray], width: float) -> np.ndarray:
    """The least of distances, rounded off with a parabola where two are within `width` of each other."""
    least, *others = distances
    for other in others:
        overlap = np.maximum(width - np.abs(least - other), 0)
        least = np.minimum(least, other) - overlap**2 / (4 * width)
    return least
