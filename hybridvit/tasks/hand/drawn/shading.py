"""What a hand looks like: the colour of its skin at each place, and pictures of its mesh in a light."""

from dataclasses import dataclass

import numpy as np

from hybridvit.tasks.hand.drawn.mesh_files import vertex_normals
from hybridvit.tasks.hand.drawn.raster import rasterise
from hybridvit.tasks.hand.mano.hand_assets import MIRROR, HandAssets
from hybridvit.tasks.hand.mano.keypoints import CHAIN_FINGERS, FINGERS

SKIN = np.array((214.0, 164.0, 138.0))  # sRGB, of the back of a hand
_UP, _UP_OF_THUMB = np.array((0.0, 1.0, 0.0)), np.array((0.35, 0.85, 0.4))  # to the back of the finger at rest
_PALM = np.array((1.17, 1.12, 1.10))  # how much lighter than the back
_NAIL = np.array((1.22, 1.2, 1.22))
_TIP = np.array((1.06, 0.95, 0.94))  # redder
_NAIL_CENTRE, _NAIL_LENGTH, _NAIL_WIDTH = 7.5e-3, 6.2e-3, 5.0e-3  # m: from the tip; half its length and width
_TIP_LENGTH, _CREASE = 20e-3, 3e-3  # m
_DARK = 0.16  # of a crease over a joint
_INSIDE = 0.45  # brightness of faces seen from behind, through the open wrist


@dataclass(frozen=True, kw_only=True)
class Light:
    """Light from one direction, and some from everywhere."""

    direction: tuple[float, float, float] = (-0.35, -0.5, -0.8)  # towards it, in the camera's frame
    ambient: float = 0.4
    gloss: float = 0.08


class SkinMap:
    """Where the palm, the nails and the tips are on a mesh, as numbers of its vertices that pixels interpolate."""

    def __init__(self, assets: HandAssets) -> None:
        side = MIRROR if assets.side == "left" else np.ones(3)
        vertices = assets.v_template.astype(np.float64) * side
        normals = vertex_normals(assets.v_template.astype(np.float64), assets.faces) * side
        thumb = assets.weights[:, 13:].sum(1, keepdims=True)
        up = _unit((1 - thumb) * _UP + thumb * _UP_OF_THUMB)
        joints = assets.joint_regressor @ vertices
        columns = [(normals * up).sum(1), *np.full((4, len(vertices)), 9.0)]  # back; nail: along, across; tip; crease
        for finger, tip in zip(FINGERS, assets.tips, strict=True):
            joint = 3 * CHAIN_FINGERS.index(finger) + 3
            along = _unit(vertices[tip] - joints[joint])
            across = _unit(np.cross(along, _UP_OF_THUMB if finger == "thumb" else _UP))
            own = assets.weights[:, joint] > 0.02
            from_tip = (vertices[tip] - vertices[own]) @ along
            columns[1][own] = (from_tip - _NAIL_CENTRE) / _NAIL_LENGTH
            columns[2][own] = (vertices[own] - vertices[tip]) @ across / _NAIL_WIDTH
            columns[3][own] = from_tip / _TIP_LENGTH
            for bent, end in ((joint - 1, joints[joint]), (joint, vertices[tip])):
                near = np.abs((vertices - joints[bent]) @ _unit(end - joints[bent])) / _CREASE
                moved = assets.weights[:, joint - 2 : joint + 1].sum(1) > 0.9
                columns[4] = np.where(moved, np.minimum(columns[4], near), columns[4])
        self.values = np.stack(columns, 1)  # v 5


def skin_colours(values: np.ndarray) -> np.ndarray:
    """Factors of the colour of the skin (n 3) at places of a `SkinMap` (n 5)."""
    back, along, across, from_tip, crease = values.T[..., None]
    colour = 1 + _smooth(0.25, -0.45, back) * (_PALM - 1)
    colour = colour * (1 + _smooth(1.0, 0.1, from_tip) * (_TIP - 1))
    colour = colour * (1 - _DARK * _smooth(1, 0, crease))
    nail = _smooth(1.12, 0.92, np.sqrt(np.abs(along) ** 2.6 + np.abs(across) ** 2.6)) * _smooth(0.2, 0.4, back)
    edge = _smooth(1.35, 1.1, np.hypot(along, across)) * _smooth(0.1, 0.3, back) * (1 - nail)
    return colour * (1 - 0.12 * edge) * (1 - nail) + _NAIL * nail


def rendered(
    vertices: np.ndarray,
    points_px: np.ndarray,
    faces: np.ndarray,
    skin: SkinMap,
    size: tuple[int, int],
    *,
    colour: np.ndarray = SKIN,
    light: Light | None = None,
    samples: int = 2,
) -> np.ndarray:
    """A picture of a mesh (height width 4: sRGB times opacity, and opacity, 0 to 1).

    Vertices (v 3) are in the camera's frame, with z > 0; points (v 2) are where they lie, in pixels from the picture's
    corner. Each pixel is the mean of samples x samples.
    """
    light = light or Light()
    raster = rasterise(points_px * samples, vertices[:, 2], faces, (size[0] * samples, size[1] * samples))
    picture = np.zeros((*raster.face.shape, 4))
    normals = vertex_normals(vertices, faces)
    found = raster.interpolated(np.hstack((normals, vertices, skin.values)), faces)
    front = _front(vertices, faces)[raster.face[raster.mask]]
    shade = _shade(_unit(found[:, :3]), -_unit(found[:, 3:6]), front, light)
    pixels = colour / 255 * skin_colours(found[:, 6:]) * shade[:, :1] + shade[:, 1:]
    mask = raster.mask
    picture[mask, :3], picture[mask, 3] = pixels.clip(0, 1), 1
    return picture.reshape(size[0], samples, size[1], samples, 4).mean((1, 3))


def over(background: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """A `rendered` picture on a background (height width 3, bytes), as bytes."""
    mixed = picture[..., :3] * 255 + background * (1 - picture[..., 3:])
    return mixed.round().clip(0, 255).astype(np.uint8)


def _front(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Whether a camera at the origin sees each face from outside."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return (np.cross(b - a, c - a) * a).sum(1) < 0


def _shade(normals: np.ndarray, to_camera: np.ndarray, front: np.ndarray, light: Light) -> np.ndarray:
    """Of each pixel (n 2) the factor of its colour and what shines on top."""
    normals = np.where(front[:, None], normals, -normals)
    towards = _unit(np.array(light.direction))
    wrapped = ((normals @ towards + 0.25) / 1.25).clip(0)  # skin lets some light through
    gloss = light.gloss * (normals * _unit(towards + to_camera)).sum(1).clip(0) ** 24
    factor = (light.ambient + (1 - light.ambient) * wrapped) * np.where(front, 1, _INSIDE)
    return np.stack((factor * 1.08, gloss * front), 1)


def _smooth(start: float, end: float, values: np.ndarray) -> np.ndarray:
    """From 0 at `start` to 1 at `end`, which may be the smaller."""
    share = ((values - start) / (end - start)).clip(0, 1)
    return share * share * (3 - 2 * share)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
