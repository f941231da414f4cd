"""A hand in a picture, as a model says: JSON, lines, pictures, and meshes for other programs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.scores import Columns, Result
from hybridvit.task import Outputs
from hybridvit.tasks.hand.drawn.drawing import (
    TRUTH_COLOUR,
    Placed,
    beside,
    bone_colours,
    draw_caption,
    draw_mesh,
    draw_outline,
    draw_skeleton,
    turned_view,
)  # fmt: skip
from hybridvit.tasks.hand.drawn.mesh_files import Mesh, Skeleton, glb, obj, ply
from hybridvit.tasks.hand.drawn.shading import SKIN, SkinMap, skin_colours
from hybridvit.tasks.hand.freihand.camera import root_position, upright_view
from hybridvit.tasks.hand.mano.angles import LIMITS, joint_angles
from hybridvit.tasks.hand.mano.hand_assets import MIRROR, HandAssets, Side
from hybridvit.tasks.hand.mano.keypoints import BONES, FINGERS, KEYPOINTS
from hybridvit.tasks.hand.mano.quaternion import axis_angles, quaternions

VERTICES, KEYPOINTS_3D, CAMERA, ROTATIONS, SHAPE = "vertices", "keypoints", "camera", "rotations", "shape"
SAME_MM, SAME_PX = 1.0, 0.01  # mean distance of vertices, and of points in sides of the crop: the same to a person
FILLS = (0.2, 0.95)  # of the crop's side: what the hands that models are trained on fill
TURNS = (90.0, 180.0)  # degrees of the two turned views


@dataclass(frozen=True, kw_only=True, eq=False)
class HandResult(Result):
    """The hand of one picture. Lengths in metres from the wrist, in the camera's axes (x right, y down, z away)."""

    lies_in_picture: ClassVar[bool] = True

    assets: HandAssets  # of this side
    frame: Frame
    vertices: np.ndarray  # v 3
    keypoints: np.ndarray  # 21 3
    camera: np.ndarray  # 3: s, tx, ty; a point lies at s X_xy + t, from -1 to 1 across the crop
    rotations: np.ndarray | None = None  # 16 3 3, the first of the wrist; None: the file does not give them
    shape: np.ndarray | None = None  # 10
    focal_px: float | None = None  # of the picture's camera: tells where in space the wrist is
    truth: np.ndarray | None = None  # v 3, metres, root-relative: drawn as an outline
    in_row: bool = False  # draw the picture itself, the mesh over it, and two turned views, side by side

    @property
    def side(self) -> Side:
        """Which hand it is."""
        return self.assets.side

    @property
    def note(self) -> str:
        """Whose mesh it is: a line of every picture and file."""
        kind = "generated hand" if self.assets.kind == "generated" else f"{self.assets.kind} hand"
        return f"{kind}, {self.assets.licence}" if self.assets.licence else kind

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Where points in space (n 3) lie in the picture (n 2), in pixels from its corner."""
        left, top, width, height = self.frame.crop
        normalised = self.camera[0] * points[:, :2] + self.camera[1:]
        return (normalised + 1) / 2 * (width, height) + (left, top)

    @cached_property
    def angles(self) -> dict[str, float]:
        """Of the joints, in degrees by name; empty where the rotations are not known."""
        return {} if self.rotations is None else joint_angles(self.rotations, self.assets)

    @property
    def position(self) -> np.ndarray | None:
        """Where the wrist is from the camera (3, metres), as weak perspective knows it; None without a focal length."""
        if self.focal_px is None:
            return None
        height, width = self.frame.picture_size
        camera = np.array([[self.focal_px, 0, width / 2], [0, self.focal_px, height / 2], [0, 0, 1]])
        return root_position(self.camera, upright_view(self.frame).camera(camera), self.frame.input_size)

    @property
    def filled(self) -> float:
        """The longer side of the hand's box over that of the crop."""
        return float(np.ptp(self.pixels(self.vertices), axis=0).max() / max(self.frame.crop[2:]))

    def to_dict(self) -> dict[str, Any]:
        """Lengths in millimetres from the wrist, points in pixels from the picture's corner, angles in degrees.

        `axis_angle_with_mean` are absolute rotations in radians, the wrist's first, in MANO's order of joints.
        """
        found: dict[str, Any] = {
            "side": self.side,
            "hand": self.assets.kind,
            "box": [round(value, 2) for value in self.frame.crop],
            "keypoint_names": list(KEYPOINTS),
            "keypoints_mm": _rounded(self.keypoints * 1e3, 3),
            "keypoints_px": _rounded(self.pixels(self.keypoints), 2),
            "camera": dict(zip(("scale_per_m", "x", "y"), _rounded(self.camera, 6), strict=True)),
        }
        if self.rotations is not None:
            each = np.concatenate([quaternions(one) for one in self.rotations[:, None].astype(np.float64)])
            found["quaternions_xyzw"] = _rounded(each, 6)
            found["axis_angle_with_mean"] = _rounded(axis_angles(self.rotations.astype(np.float64)).ravel(), 6)
            found["angles_deg"] = {name: round(value, 1) for name, value in self.angles.items()}
        if self.position is not None:
            found["position_m"] = _rounded(self.position, 4)
        if self.shape is not None:
            found["shape"] = _rounded(self.shape, 5)
        return found | ({"warning": self._warning} if self._warning else {})

    @property
    def columns(self) -> Columns:
        known: dict[str, Any] = {
            "side": str,
            "hand": str,
            "box": [float],
            "keypoint_names": [str],
            "keypoints_mm": [[float]],
            "keypoints_px": [[float]],
            "camera": dict.fromkeys(("scale_per_m", "x", "y"), float),
        }
        if self.rotations is not None:
            known |= {"quaternions_xyzw": [[float]], "axis_angle_with_mean": [float]}
            known["angles_deg"] = dict.fromkeys(LIMITS, float)
        if self.position is not None:
            known["position_m"] = [float]
        if self.shape is not None:
            known["shape"] = [float]
        return known | {"warning": str}

    def lines(self) -> list[str]:
        low, high = (extreme(self.pixels(self.vertices), axis=0) for extreme in (np.min, np.max))
        across, down = high - low
        lines = [f"  {self.side} hand, {across:.0f}x{down:.0f} px at {low[0]:.0f}, {low[1]:.0f}"]
        if self.angles:
            bends = [
                f"{finger} {sum(v for n, v in self.angles.items() if n.startswith(finger) and n.endswith('_bend')):.0f}"
                for finger in FINGERS
            ]
            lines.append(f"  bent by degrees: {', '.join(bends)}")
        return lines + ([f"  {self._warning}"] if self._warning else [])

    def draw(self, picture: Image.Image) -> Image.Image:
        """The picture with the mesh and its skeleton over the hand, and the truth's outline where it is known."""
        plain = picture.convert("RGB")
        drawn, hand = plain.copy(), self._placed(self.vertices)
        skin = _skin_of(self.assets)
        draw_mesh(drawn, hand, self.assets, skin)
        truth = None if self.truth is None else self._placed(self.truth)
        if truth is not None:
            draw_outline(drawn, truth, self.assets.faces, TRUTH_COLOUR)
        draw_skeleton(drawn, self.pixels(self.keypoints), self.keypoints[:, 2])
        if self.in_row:
            side = max(drawn.height, 160)
            views = [turned_view(hand, self.assets, skin, turn, side, truth) for turn in TURNS]
            drawn = beside([plain.resize((round(plain.width * side / plain.height), side)), drawn, *views])
        if self.assets.kind == "generated":
            draw_caption(drawn, "generated hand")
        return drawn

    def files(self) -> dict[str, bytes]:
        """The mesh for other programs, two turned views, and the numbers as NumPy arrays."""
        mesh, skin, hand = self.mesh, _skin_of(self.assets), self._placed(self.vertices)
        views = beside([turned_view(hand, self.assets, skin, turn, 320) for turn in TURNS])
        draw_caption(views, self.note)
        picture, arrays = io.BytesIO(), io.BytesIO()
        views.save(picture, "PNG")
        names = (VERTICES, KEYPOINTS_3D, CAMERA, ROTATIONS, SHAPE)
        known: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        np.savez(arrays, **known)
        return {
            "obj": obj(mesh),
            "ply": ply(mesh),
            "glb": glb(mesh),
            "views.png": picture.getvalue(),
            "npz": arrays.getvalue(),
        }

    @property
    def mesh(self) -> Mesh:
        """What files and pages show."""
        colours = (SKIN * skin_colours(_skin_of(self.assets).values)).clip(0, 255).round()
        skeleton = Skeleton(keypoints=self.keypoints, bones=BONES, colours=bone_colours())
        return Mesh(vertices=self.vertices, faces=self.assets.faces, colours=colours, skeleton=skeleton, note=self.note)

    def agrees(self, other: Result) -> bool:
        """The same hand to a millimetre, in the same place."""
        if not isinstance(other, HandResult) or other.side != self.side:
            return False
        apart_mm = np.linalg.norm(self.vertices - other.vertices, axis=1).mean() * 1e3
        apart_px = np.linalg.norm(self.pixels(self.vertices) - other.pixels(other.vertices), axis=1).mean()
        return bool(apart_mm < SAME_MM and apart_px < SAME_PX * max(self.frame.crop[2:]))

    @property
    def _warning(self) -> str:
        if FILLS[0] <= self.filled <= FILLS[1]:
            return ""
        return (
            f"The hand would fill {100 * self.filled:.0f} % of the crop, but models know hands that fill about half: "
            "give the hand's box."
        )

    def _placed(self, vertices: np.ndarray) -> Placed:
        return Placed(vertices, self.pixels(vertices))


def results_of(
    outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, assets: HandAssets, side: Side = "right"
) -> list[HandResult]:
    """The hand of each picture; `assets` are those of the right hand, which every model sees.

    For the side "left" the model saw pictures that were mirrored: what it says is mirrored back. Raises UsageError for
    outputs that are no hands.
    """
    if any(name not in outputs for name in (VERTICES, KEYPOINTS_3D, CAMERA)):
        raise UsageError(
            f"gives {', '.join(outputs)}, so there is no mesh in its answers. Call what `hybridvit.load` opens, or "
            "export the model again with --returns hand."
        )
    arrays = {name: np.asarray(values, np.float64) for name, values in outputs.items()}
    if side == "left":
        assets = _mirror_of(assets)
        arrays = {name: _mirrored(name, values) for name, values in arrays.items()}
    return [
        HandResult(
            assets=assets,
            frame=frame or Frame.whole(*card.preprocessing.image_size),
            **{
                name: arrays[name][place]
                for name in (VERTICES, KEYPOINTS_3D, CAMERA, ROTATIONS, SHAPE)
                if name in arrays
            },
        )
        for place, frame in enumerate(frames)
    ]


def _mirrored(name: str, values: np.ndarray) -> np.ndarray:
    if name in (VERTICES, KEYPOINTS_3D):
        return values * MIRROR
    if name == ROTATIONS:
        return values * MIRROR[:, None] * MIRROR
    return values * (1.0, -1.0, 1.0) if name == CAMERA else values


@lru_cache(maxsize=2)
def _skin_of(assets: HandAssets) -> SkinMap:
    return SkinMap(assets)


@lru_cache(maxsize=2)
def _mirror_of(assets: HandAssets) -> HandAssets:
    return assets.mirrored()


def _rounded(values: np.ndarray, digits: int) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()
