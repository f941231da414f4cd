"""What arrays must be to be a hand: each rule with a sentence of its own."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from hybridvit.errors import CheckpointError, plural
from hybridvit.tasks.hand.mano.keypoints import JOINTS

NUM_JOINTS, NUM_SHAPES, NUM_POSES = len(JOINTS), 10, 45
BORDER = 16  # edges of the mesh's only opening, at the wrist
LARGEST = 10_000  # of any real: less than what float32 has
SMALLEST_M, LARGEST_M = 0.1, 0.4  # the longest side of a hand's bounding box
SUM_OF_WEIGHTS, SUM_OF_REGRESSOR, LOWEST_WEIGHT = 1e-4, 1e-3, -1e-6  # how far these may be off 1, and below 0


@np.errstate(over="ignore", invalid="ignore")  # of damaged arrays
def check_arrays(arrays: Mapping[str, np.ndarray], side: str) -> None:
    """Raise CheckpointError where the arrays of a `HandAssets` are no right, or left, hand in metres."""
    vertices = len(arrays["v_template"])
    shapes = {
        "v_template": (vertices, 3), "shapedirs": (vertices, 3, NUM_SHAPES), "posedirs": (vertices, 3, 3 * NUM_POSES),
        "joint_regressor": (NUM_JOINTS, vertices), "weights": (vertices, NUM_JOINTS), "pose_mean": (NUM_POSES,),
        "pose_components": (NUM_POSES, NUM_POSES), "faces": (len(arrays["faces"]), 3), "tips": (5,),
    }  # fmt: skip
    for name, array in arrays.items():
        _check_array(name, array, shapes[name])
    _check_sums(arrays["weights"], arrays["joint_regressor"])
    _check_mesh(arrays["faces"], vertices)
    if not 0 <= arrays["tips"].min() <= arrays["tips"].max() < vertices:
        raise CheckpointError(
            f"tips are {arrays['tips'].tolist()}, but vertices have numbers from 0 to {vertices - 1}."
        )
    _check_place(arrays, side)


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    kinds = "i" if name in ("faces", "tips") else "f"
    if array.shape != shape or array.dtype.kind != kinds:
        wanted = "integers" if kinds == "i" else "reals"
        raise CheckpointError(
            f"{name} is {array.dtype} of {' x '.join(map(str, array.shape))}, but this hand's has to be "
            f"{' x '.join(map(str, shape))} {wanted}. The file is no MANO model of one hand, or is damaged."
        )
    if kinds == "f" and (count := int((~(np.abs(array) <= LARGEST)).sum())):
        raise CheckpointError(f"{name} has {plural(count, 'value')} not finite or beyond ±{LARGEST:,}: it is damaged.")


def _check_sums(weights: np.ndarray, regressor: np.ndarray) -> None:
    if (lowest := float(weights.min())) < LOWEST_WEIGHT:
        raise CheckpointError(
            f"weights has {lowest:.3g}, but no joint moves a vertex by less than nothing: it is damaged."
        )
    for name, rows, limit in (("weights", weights, SUM_OF_WEIGHTS), ("joint_regressor", regressor, SUM_OF_REGRESSOR)):
        sums = rows.sum(1, dtype=np.float64)
        worst = int(np.abs(sums - 1).argmax())
        if abs(sums[worst] - 1) > limit:
            raise CheckpointError(
                f"{name}: row {worst} sums to {sums[worst]:.6g}, but every row has to sum to 1. The file is damaged."
            )


def _check_mesh(faces: np.ndarray, vertices: int) -> None:
    """A sheet with one opening, whose faces all show the same side."""
    if not 0 <= faces.min() <= faces.max() < vertices:
        raise CheckpointError(
            f"faces names vertices from {faces.min()} to {faces.max()}, but there are those from 0 to {vertices - 1}."
        )
    starts, ends = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    edges, back = starts * vertices + ends, ends * vertices + starts
    if len(np.unique(edges)) < len(edges):
        raise CheckpointError(
            "faces has an edge that two faces run along in the same direction: the mesh is no surface."
        )
    border = ~np.isin(edges, back)
    following = dict(zip(starts[border].tolist(), ends[border].tolist(), strict=True))
    at, length = next(iter(following), 0), 0
    while at in following:
        at, length = following.pop(at), length + 1
    if border.sum() != BORDER or length != BORDER:
        raise CheckpointError(
            f"The mesh has {border.sum()} open edges, {length} of them in the first loop, but a hand is open at the "
            f"wrist alone, by one loop of {BORDER} edges."
        )


def _check_place(arrays: Mapping[str, np.ndarray], side: str) -> None:
    template = arrays["v_template"]
    longest = float(np.ptp(template, axis=0).max())
    if not SMALLEST_M <= longest <= LARGEST_M:
        hint = " Are these millimetres?" if SMALLEST_M <= longest / 1000 <= LARGEST_M else ""
        raise CheckpointError(
            f"The hand is {longest:.4g} m long, but one at rest has {SMALLEST_M} to {LARGEST_M} m.{hint}"
        )
    if side not in ("right", "left"):
        raise CheckpointError(f"The side is '{side}', but a hand is the right or the left one.")
    if (found := side_of(arrays)) != side:
        raise CheckpointError(
            f"This is said to be a {side} hand, but its fingertips lie where a {found} one's do: right of the wrist "
            "(x) for a left hand, left of it for a right one. Give --side as it is, or leave it out."
        )


@np.errstate(over="ignore", invalid="ignore")
def side_of(arrays: Mapping[str, np.ndarray]) -> Literal["right", "left"]:
    """Which hand it is, by where its fingertips lie beside its wrist."""
    wrist = arrays["joint_regressor"][0] @ arrays["v_template"]
    return "right" if arrays["v_template"][arrays["tips"], 0].mean() < wrist[0] else "left"
