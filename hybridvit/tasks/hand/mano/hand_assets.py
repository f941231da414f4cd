"""The arrays that a hand's mesh is made of: those of MANO, or of a generated hand. Needs no torch."""

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np

from hybridvit.tasks.hand.mano.asset_checks import check_arrays

Side = Literal["right", "left"]
Kind = Literal["MANO", "generated"]

MIRROR = np.array([-1.0, 1.0, 1.0])  # x changes its sign
MICRO = 1e6


@dataclass(frozen=True, kw_only=True, eq=False)
class HandAssets:
    """A hand at rest and what moves it; v vertices, f faces. Lengths in metres, axes as MANO has them.

    A right hand's fingers point to -x, the back of the hand to +y, the thumb to +z. Raises CheckpointError where the
    arrays are no hand: see `check_arrays`.
    """

    v_template: np.ndarray  # v 3: the mesh of the mean shape, at rest
    shapedirs: np.ndarray  # v 3 10: how each shape parameter moves it
    posedirs: np.ndarray  # v 3 135: how each entry of R - I of the 15 joints after the wrist does, row by row
    joint_regressor: np.ndarray  # 16 v: joints from vertices
    weights: np.ndarray  # v 16: of each joint's motion
    pose_mean: np.ndarray  # 45: axis-angle of 15 joints, added to poses that are relative to it
    pose_components: np.ndarray  # 45 45: rows are the directions of poses in PCA
    faces: np.ndarray  # f 3, int64: counter-clockwise from outside
    tips: np.ndarray  # 5, int64: vertices at the ends of thumb, index, middle, ring, little finger
    side: Side = "right"
    kind: Kind = "MANO"
    licence: str = ""
    source_sha256: str = ""  # of the file that it was converted from

    def __post_init__(self) -> None:
        check_arrays(self.arrays(), self.side)

    def arrays(self) -> dict[str, np.ndarray]:
        """The nine arrays by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.type is np.ndarray}

    def notes(self) -> dict[str, str]:
        """What there is besides the arrays."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.type is not np.ndarray}

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the content in millionths (of metres), as 64 hexadecimal digits.

        It is the same for float64 arrays and their copy in float32, and on machines whose last digits differ.
        """
        digest = hashlib.sha256(self.side.encode())
        for name, array in self.arrays().items():
            if array.dtype.kind == "f":
                array = np.rint(array.astype(np.float32).astype(np.float64) * MICRO)
            digest.update(f"{name}{array.shape}".encode() + array.astype("<i8").tobytes())
        return digest.hexdigest()

    def mirrored(self) -> "HandAssets":
        """The hand of the other side: every vertex where a mirror shows it, in any shape and mirrored pose."""
        of_axis_angle = np.tile(-MIRROR, 15).astype(self.pose_mean.dtype)
        side = MIRROR.astype(self.v_template.dtype)
        of_rotation = np.tile(np.outer(side, side).ravel(), 15)
        return replace(
            self,
            v_template=self.v_template * side,
            shapedirs=self.shapedirs * side[:, None],
            posedirs=self.posedirs * side[:, None] * of_rotation,
            pose_mean=self.pose_mean * of_axis_angle,
            pose_components=self.pose_components * of_axis_angle,
            faces=np.ascontiguousarray(self.faces[:, [0, 2, 1]]),  # normals point outwards again
            side="left" if self.side == "right" else "right",
        )
