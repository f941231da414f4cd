"""What is drawn by lot for pictures of hands: poses as hands take them, shapes, views, light and skin."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from hybridvit.tasks.hand.drawn.shading import Light
from hybridvit.tasks.hand.mano.angles import joint_axes
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import CHAIN_FINGERS, PALM
from hybridvit.tasks.hand.mano.rotation import from_axis_angle

FOCAL = 600 / 224  # of the picture's side: in the middle of FreiHAND's, and a hand fills two thirds of the picture
_SKINS = np.array(((232, 190, 165), (214, 164, 138), (168, 116, 86), (112, 74, 54)), float)
_KNUCKLE, _MIDDLE, _LAST = (-0.25, 1.5), (0.0, 1.75), 0.6  # radians that joints bend by; the last one as the middle one
_THUMB = (0.5, 0.7)  # radians that its two outer joints bend by at most
_LAST_SPREAD, _SIDEWAYS, _THUMB_BASE = 0.1, 0.12, 0.25  # radians
_BETA = 0.8  # of the distribution of curls: most fingers are nearly straight or nearly closed
_DEPTH_M, _SHIFT_M = (0.62, 0.85), 0.012


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How much hands differ, from which sides they are seen."""

    synergy: float = 0.75  # share of a curl that all fingers have in common
    tilt_deg: float = 26.0  # at most, about both axes of the picture
    roll_deg: float = 11.0  # standard deviation in the picture
    back_share: float = 0.0  # of hands that show their backs

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Look(NamedTuple):
    """How a hand stands before a camera, and in which light."""

    rotations: np.ndarray  # 16 3 3
    shape: np.ndarray  # 10
    place: np.ndarray  # 3, metres: where the knuckle of the middle finger is, in the camera's frame
    focal_px: float
    light: Light
    skin: np.ndarray  # 3, sRGB


def drawn_look(dice: np.random.Generator, assets: HandAssets, variety: Variety, side: int) -> Look:
    """A look for a picture of `side` x `side` pixels."""
    return Look(
        rotations=np.concatenate((_view(dice, variety)[None], _pose(dice, variety, joint_axes(assets)))),
        shape=dice.normal(size=10),
        place=np.array((*dice.normal(0, _SHIFT_M, 2), dice.uniform(*_DEPTH_M))),
        focal_px=FOCAL * side * dice.uniform(0.95, 1.05),
        light=Light(
            direction=(dice.uniform(-1, 1), dice.uniform(-1.2, 0.4), -1.0),
            ambient=dice.uniform(0.2, 0.5),
            gloss=dice.uniform(0, 0.12),
        ),
        skin=_SKINS[dice.integers(len(_SKINS))] * dice.uniform(0.85, 1.1) * dice.uniform(0.96, 1.04, 3),
    )


def _pose(dice: np.random.Generator, variety: Variety, axes: np.ndarray) -> np.ndarray:
    """Rotations of the fifteen joints after the wrist."""
    curls = variety.synergy * dice.beta(_BETA, _BETA) + (1 - variety.synergy) * dice.beta(_BETA, _BETA, 5)
    turns = np.zeros((15, 3))  # about each joint's own axes: bone, back, across
    sideways = np.zeros((15, 3))
    for place, (finger, curl) in enumerate(zip(CHAIN_FINGERS, curls, strict=True)):
        first = 3 * place
        if finger == "thumb":
            turns[first] = dice.normal(0, _THUMB_BASE, 3)
            turns[first + 1 : first + 3, 2] = [-curl * most for most in _THUMB]
            continue
        middle = _MIDDLE[0] + (_MIDDLE[1] - _MIDDLE[0]) * curl
        last = _LAST * middle + dice.uniform(-_LAST_SPREAD, _LAST_SPREAD)
        turns[first : first + 3, 2] = -(_KNUCKLE[0] + (_KNUCKLE[1] - _KNUCKLE[0]) * curl), -middle, -last
        sideways[first, 1] = dice.normal(0, _SIDEWAYS) * (1 - curl)
    local = _matrices(sideways) @ _matrices(turns)
    return axes @ local @ axes.swapaxes(1, 2)


def _view(dice: np.random.Generator, variety: Variety) -> np.ndarray:
    """The rotation of the wrist."""
    tilt = np.radians(dice.uniform(-variety.tilt_deg, variety.tilt_deg, 2))
    roll = np.radians(dice.normal(0, variety.roll_deg))
    about = np.array(((tilt[0], 0, 0), (0, tilt[1] + np.pi * (dice.random() < variety.back_share), 0), (0, 0, roll)))
    x, y, z = _matrices(about)
    return z @ x @ y @ np.array(PALM)


def _matrices(vectors: np.ndarray) -> np.ndarray:
    return from_axis_angle(torch.from_numpy(vectors)).numpy()
