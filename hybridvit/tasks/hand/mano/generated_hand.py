"""A hand with MANO's structure that is made up, and may be passed on: for tests, demonstrations and first trials.

Nothing of MANO is in it. Its vertices stand in another order than MANO's, so that which are fingertips is told by the
assets alone.
"""

import functools

import numpy as np

from hybridvit.tasks.hand.mano.generated_fingers import FINGERS, WRIST, Finger
from hybridvit.tasks.hand.mano.generated_mesh import Mesh, generated_mesh
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import CHAIN_FINGERS, JOINTS

METRES = 1e-3  # in a millimetre
BENDS_OVER = (9.0, 6.0, 5.0)  # mm on both sides of the three joints of a finger
THUMB_BENDS_OVER = (14.0, 6.0, 5.0)
FOLLOWS_WITHIN, FOLLOWS_OVER = 8.0, 6.0  # mm across a finger, within which the palm moves with it, and over which less
NEAREST = 24  # vertices that a joint is the mean of, about
BULGE, BULGE_OVER = 1.5, 7.0  # mm that a bent joint bulges by, and how far
CURL = (0.20, 0.25, 0.15)  # radians that the fingers are bent by in the mean pose

_CHAIN = tuple(next(each for each in FINGERS if each.name == name) for name in CHAIN_FINGERS)


@functools.cache
def generated_hand() -> HandAssets:
    """A right hand of 778 vertices and 1538 faces, in metres, float64; made in half a second, then kept."""
    mesh = generated_mesh()
    points = mesh.points
    joints = np.concatenate([WRIST[None], *(finger.joints[:3] for finger in _CHAIN)])
    return HandAssets(
        v_template=METRES * points,
        shapedirs=METRES * _shapes(mesh),
        posedirs=METRES * _bulges(mesh, joints),
        joint_regressor=_regressor(points, joints),
        weights=_weights(mesh),
        pose_mean=np.array([(0, 0, angle) for name in CHAIN_FINGERS for angle in _curl(name)], np.float64).ravel(),
        pose_components=_components(),
        faces=mesh.faces,
        tips=mesh.tips,
        kind="generated",
        licence="Apache-2.0",
    )


def _weights(mesh: Mesh) -> np.ndarray:
    """How much each of the 16 joints moves each vertex (v 16): a step across each joint, without corners."""
    weights = np.zeros((len(mesh.points), len(JOINTS)))
    for number, finger in enumerate(_CHAIN):
        a, b, c = _bent(finger, mesh.points)
        own = mesh.finger == FINGERS.index(finger)
        away = np.maximum(np.linalg.norm(finger.beside(mesh.points), axis=1) - FOLLOWS_WITHIN, 0)
        follows = np.where(own, a, np.where(mesh.finger < 0, a * (1 - b) * np.exp(-((away / FOLLOWS_OVER) ** 2)), 0))
        b, c = np.where(own, b, 0), np.where(own, c, 0)
        first = 1 + 3 * number
        weights[:, first : first + 3] = follows[:, None] * np.stack((1 - b, b * (1 - c), b * c), axis=1)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1)  # between two fingers both may pull
    weights[:, 0] = 1 - weights.sum(1)
    return weights


def _bent(finger: Finger, points: np.ndarray) -> list[np.ndarray]:
    """For each of a finger's joints, how far beyond it points are: 0 before it, 1 after it."""
    places = np.cumsum([0.0, *finger.phalanges[:2]])
    over = THUMB_BENDS_OVER if finger.name == "thumb" else BENDS_OVER
    return [_step((finger.along(points) - place) / half) for place, half in zip(places, over, strict=True)]


def _step(x: np.ndarray) -> np.ndarray:
    """From 0 at -1 to 1 at 1, without corners."""
    share = np.clip((x + 1) / 2, 0, 1)
    return share * share * (3 - 2 * share)


def _regressor(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Weights of vertices (16 v) whose sum is 1 and whose mean is the joint: of those near it, nearly equal."""
    rows = np.zeros((len(joints), len(points)))
    for row, joint in zip(rows, joints, strict=True):
        near = np.argsort(np.linalg.norm(points - joint, axis=1), kind="stable")[:NEAREST]
        conditions = np.concatenate([points[near].T, np.ones((1, NEAREST))])
        equal = np.full(NEAREST, 1 / NEAREST)
        row[near] = equal + np.linalg.pinv(conditions) @ (np.append(joint, 1) - conditions @ equal)
    return rows


def _bulges(mesh: Mesh, joints: np.ndarray) -> np.ndarray:
    """How the skin moves with each entry of R - I (v 3 135): out by (1 - cos angle) near a joint that is bent.

    The diagonal of R - I sums to -2 (1 - cos angle).
    """
    normals = _normals(mesh)
    moves = np.zeros((len(mesh.points), 3, len(JOINTS) - 1, 3, 3))
    for number, joint in enumerate(joints[1:]):
        near = np.exp(-((mesh.points - joint) ** 2).sum(1) / (2 * BULGE_OVER**2))
        moves[:, :, number, range(3), range(3)] = (-0.5 * BULGE * near[:, None] * normals)[..., None]
    return moves.reshape(len(mesh.points), 3, -1)


def _normals(mesh: Mesh) -> np.ndarray:
    """Of length 1 at the vertices, out of the hand: v 3."""
    corners = mesh.points[mesh.faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(mesh.points)
    for corner in range(3):
        np.add.at(normals, mesh.faces[:, corner], areas)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _shapes(mesh: Mesh) -> np.ndarray:
    """Ten ways in which hands differ (v 3 10), each by half a millimetre to two in the mean.

    Size; length of the fingers; thickness; width; length of the palm; length of the thumb; index against little finger;
    thickness of the fingers; thickness of the palm; height of its arch. Of the ways of the palm a finger takes part as
    a whole, as its first joint does, so that none is bent.
    """
    longer, longer_thumb, slanted, thicker = (np.zeros_like(mesh.points) for _ in range(4))
    fingers = np.zeros((len(mesh.points), 1))  # from 0 in the palm to 1 on the fingers
    held = mesh.points.copy()  # where a finger's first joint is, or the vertex itself in the palm
    for number, finger in enumerate(FINGERS):
        own = mesh.finger == number
        beyond = np.where(own, np.maximum(finger.along(mesh.points), 0), 0)[:, None] * finger.axis
        part = np.where(own, _bent(finger, mesh.points)[0], 0)[:, None]
        fingers += part
        held += part * (finger.joints[0] - mesh.points)
        longer += 0.05 * beyond
        longer_thumb += 0.07 * (finger.name == "thumb") * beyond
        slanted += {"index": 0.08, "little": -0.10}.get(finger.name, 0) * beyond
        thicker += 0.15 * part * finger.beside(mesh.points)
    x, y, z = np.eye(3)
    arch = 3.0 * np.clip(1 - (held[:, 2:] / 30) ** 2, -1, 1) * np.clip((WRIST[0] - held[:, :1]) / 100, 0, 1)
    ways = (
        *(0.02 * (mesh.points - WRIST), longer, 0.12 * mesh.points * y, 0.06 * held * z, 0.03 * (held - WRIST) * x),
        *(longer_thumb, slanted, thicker, 0.15 * (1 - fingers) * held * y, arch * y),
    )
    return np.stack(ways, axis=-1)


def _curl(name: str) -> tuple[float, ...]:
    """Angles about +z at the joints of a finger in the mean pose: towards the palm."""
    return (0.0,) * 3 if name == "thumb" else CURL


def _components() -> np.ndarray:
    """Directions of poses (45 45), at right angles: the first bends all fingers, the others are what is left."""
    bend = np.array([(0, 0, name != "thumb") for name in CHAIN_FINGERS for _ in range(3)], np.float64).ravel()
    bend /= np.linalg.norm(bend)
    across = np.eye(45)[0] - bend
    across /= np.linalg.norm(across)
    return np.eye(45) - 2 * np.outer(across, across)  # a mirror that brings the first axis to `bend`
