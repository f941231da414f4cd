"""Angles of the joints of a hand in degrees, as doctors and robots count them, and keypoints as retargeting takes them.

Each joint has axes of its own: along its bone, towards the back of the hand, and across. A rotation is a twist about
the bone, then a spread, then a bend, each in the frame that the one before it leaves: a finger of a robot has its
spreading joint nearer to the palm than its bending ones, too.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import CHAIN_FINGERS, FINGERS

MOTIONS = ("bend", "spread", "twist")
"""Bend is positive towards the palm, spread towards the thumb's side, twist by the right-hand rule about a bone that
points to the tip (of a left hand: what its mirror image does)."""

JOINTS_OF = dict.fromkeys(FINGERS, ("mcp", "pip", "dip")) | {"thumb": ("cmc", "mcp", "ip")}
"""The joints of each finger, from the palm to the tip, by their anatomical names."""

_MIRROR = np.array((-1.0, 1.0, 1.0))
_UP, _UP_OF_THUMB = np.array((0.0, 1.0, 0.0)), np.array((1.0, 1.0, 1.0)) / np.sqrt(3)  # to the back, in a right hand
_FREE = (-45.0, 45.0)  # of a thumb's joint that turns all ways
_STIFF = (-15.0, 15.0)
_RANGES = {
    "mcp": ((-30.0, 95.0), (-30.0, 30.0), (-20.0, 20.0)),
    "pip": ((-10.0, 115.0), _STIFF, _STIFF),
    "dip": ((-15.0, 90.0), _STIFF, _STIFF),
    "thumb_cmc": (_FREE, _FREE, _FREE),
    "thumb_mcp": ((-20.0, 70.0), (-25.0, 25.0), (-25.0, 25.0)),
    "thumb_ip": ((-25.0, 90.0), _STIFF, _STIFF),
}


def _names() -> list[tuple[str, str]]:
    """Finger and joint of the fifteen joints after the wrist, in MANO's order."""
    return [(finger, joint) for finger in CHAIN_FINGERS for joint in JOINTS_OF[finger]]


LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        f"{finger}_{joint}_{motion}": span
        for finger, joint in _names()
        for motion, span in zip(MOTIONS, _RANGES[f"thumb_{joint}" if finger == "thumb" else joint], strict=True)
    }
)
"""What a healthy hand reaches by itself, roughly, in degrees, by the name of the angle."""


def joint_angles(rotations: np.ndarray, assets: HandAssets) -> dict[str, float]:
    """Bend, spread and twist of each joint in degrees by name, as `index_pip_bend`, from rotations 16 3 3.

    0 is the hand at rest. The assets are those of the hand that is turned, right or left.
    """
    axes = joint_axes(assets)  # 15 3 3
    turned = rotations[1:].astype(np.float64)
    if assets.side == "left":
        turned = turned * _MIRROR[:, None] * _MIRROR
    local = axes.swapaxes(1, 2) @ turned @ axes  # about the bone, towards the back, across
    twist = np.arctan2(-local[:, 1, 2], local[:, 2, 2])
    spread = np.arcsin(local[:, 0, 2].clip(-1, 1))
    bend = -np.arctan2(-local[:, 0, 1], local[:, 0, 0])
    degrees = np.degrees(np.stack((bend, spread, twist), 1))
    return {
        f"{finger}_{joint}_{motion}": float(value)
        for (finger, joint), row in zip(_names(), degrees, strict=True)
        for motion, value in zip(MOTIONS, row, strict=True)
    }


def joint_axes(assets: HandAssets) -> np.ndarray:
    """Unit vectors of the fifteen joints at rest, as columns: along the bone, to the back, across (15 3 3).

    Those of a right hand, whichever the assets are of.
    """
    side = _MIRROR if assets.side == "left" else np.ones(3)
    joints = (assets.joint_regressor @ assets.v_template)[1:] * side
    tips = assets.v_template[assets.tips] * side
    ends = np.concatenate((joints[1:], joints[:1]))
    ends[2::3] = tips[[FINGERS.index(finger) for finger in CHAIN_FINGERS]]
    bone = _unit(ends - joints)
    up = np.stack([_UP_OF_THUMB if finger == "thumb" else _UP for finger, _ in _names()])
    across = _unit(np.cross(bone, up))
    return np.stack((bone, np.cross(across, bone), across), 2)


def beyond_limits(angles: Mapping[str, float], slack: float = 5.0) -> list[str]:
    """The names of angles that lie more than `slack` degrees outside of LIMITS."""
    return [name for name, value in angles.items() if not LIMITS[name][0] - slack <= value <= LIMITS[name][1] + slack]


def in_wrist_frame(keypoints: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Keypoints (21 3, metres) as the wrist sees them: it lies at the origin and is not turned."""
    return (keypoints - keypoints[0]) @ rotations[0]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
