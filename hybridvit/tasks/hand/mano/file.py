"""MANO's own files, MANO_RIGHT.pkl and MANO_LEFT.pkl, and copies of them whose arrays are plain ones."""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.errors import CheckpointError, UsageError, nearest, some
from hybridvit.tasks.hand.mano.asset_checks import side_of
from hybridvit.tasks.hand.mano.hand_assets import HandAssets, Side
from hybridvit.tasks.hand.mano.keypoints import JOINTS, PARENTS
from hybridvit.tasks.hand.mano.pickle_reader import Made, read_pickle, shown

LARGEST_BYTES = 64 * 2**20
MD5_OF_RIGHT = "fd5a9d35f914987cf1cc04ffe338caa1"  # of MANO_RIGHT.pkl in mano_v1_2.zip
VERTICES, FACES = 778, 1538
TIPS = (744, 320, 443, 555, 672)  # of thumb to little finger, as FreiHAND's annotations have them
LICENCE = (
    "MANO: for research, after registration and agreement at https://mano.is.tue.mpg.de; not to be passed on. "
    "Commercial use: https://meshcapade.com"
)

NAMES: Mapping[tuple[str, str], str] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "array" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "buffer" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    **{(f"scipy.sparse.{mark}{form}", f"{form}_matrix"): form for mark in ("", "_") for form in ("csc", "csr", "coo")},
    ("chumpy.ch", "Ch"): "Ch",
    ("chumpy.reordering", "Select"): "Select",
    **{(module, "set"): "set" for module in ("__builtin__", "builtins")},
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes for Python 2
}
"""The classes and functions that occur in MANO's files and their copies."""

SHAPES: Mapping[str, tuple[int, ...]] = {
    "v_template": (VERTICES, 3),
    "shapedirs": (VERTICES, 3, 10),
    "posedirs": (VERTICES, 3, 135),
    "J_regressor": (len(JOINTS), VERTICES),
    "weights": (VERTICES, len(JOINTS)),
    "hands_mean": (45,),
    "hands_components": (45, 45),
    "kintree_table": (2, len(JOINTS)),
    "f": (FACES, 3),
}
_WHOLE = ("kintree_table", "f")
_NOT_NEEDED = ("hands_coeffs", "J", "bs_style", "bs_type")


@dataclass(frozen=True, kw_only=True)
class ManoFile:
    """A hand out of MANO's file, and what should be said about that file."""

    assets: HandAssets
    remarks: tuple[str, ...] = ()


def read_mano(path: str | os.PathLike[str], side: Side | None = None) -> ManoFile:
    """The hand in a MANO file, as it stands there, in float64; nothing of the file is run.

    The side is told by the data; `side` is what it has to be. Raises UsageError for a file that is not there, and
    CheckpointError for one that is no such file, is damaged, or asks for anything that has no place in it.
    """
    path = Path(path).expanduser()
    data = _bytes_of(path)
    try:
        content = read_pickle(data, NAMES)
        if not isinstance(content, dict):
            raise CheckpointError(f"holds no dict of arrays, but {type(content).__name__}")
        arrays = {name: _array_of(content, name, shape) for name, shape in SHAPES.items()}
        if (parents := tuple(arrays["kintree_table"][0, 1:].tolist())) != PARENTS[1:]:
            raise CheckpointError(f"has joints that hang on {parents}, but those of a hand hang on {PARENTS[1:]}")
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}. Give MANO_RIGHT.pkl as mano_v1_2.zip has it.") from error
    try:
        assets = _assets(arrays, data, side)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    unknown = sorted(shown(name) for name in set(content) - set(SHAPES) - set(_NOT_NEEDED))
    remarks = [f"{path} also holds {some(unknown)}, which no hand needs: left out."] if unknown else []
    if assets.side == "right" and hashlib.md5(data, usedforsecurity=False).hexdigest() != MD5_OF_RIGHT:
        remarks.append(
            f"{path} is not the MANO_RIGHT.pkl of mano_v1_2.zip to the byte; its content passed every check."
        )
    return ManoFile(assets=assets, remarks=tuple(remarks))


def shapes_are_the_right_hands(left: HandAssets, right: HandAssets) -> bool:
    """Whether a left hand's shape parameters move it sideways as if it were the right one: a known fault of MANO's.

    See https://github.com/vchoutas/smplx/issues/48.
    """
    sideways, of_right = left.shapedirs[:, 0], right.shapedirs[:, 0]
    return bool(np.abs(sideways - of_right).sum() < np.abs(sideways + of_right).sum())


def with_left_shapes(left: HandAssets) -> HandAssets:
    """The left hand without that fault."""
    return replace(left, shapedirs=left.shapedirs * np.array([-1.0, 1.0, 1.0])[:, None])


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        near = [each.name for each in path.parent.glob("*.pkl")] if path.parent.is_dir() else []
        raise UsageError(f"{path} is no file. {nearest(path.name, near)}. Give the path of MANO_RIGHT.pkl.")
    size = path.stat().st_size
    if not 0 < size <= LARGEST_BYTES:
        raise CheckpointError(
            f"{path} has {size:,} bytes, but MANO_RIGHT.pkl has 3.8 million. Give that file, out of mano_v1_2.zip."
        )
    data = path.read_bytes()
    if data.startswith(b"PK"):
        raise CheckpointError(f"{path} is a zip file. Unzip it first; the file is models/MANO_RIGHT.pkl inside.")
    return data


def _assets(arrays: Mapping[str, np.ndarray], data: bytes, side: Side | None) -> HandAssets:
    template, regressor = arrays["v_template"], arrays["J_regressor"]
    tips = np.array(TIPS)
    found = side_of({"joint_regressor": regressor, "v_template": template, "tips": tips})
    return HandAssets(
        v_template=template,
        shapedirs=arrays["shapedirs"],
        posedirs=arrays["posedirs"],
        joint_regressor=regressor,
        weights=arrays["weights"],
        pose_mean=arrays["hands_mean"],
        pose_components=arrays["hands_components"],
        faces=arrays["f"],
        tips=tips,
        side=side or found,
        licence=LICENCE,
        source_sha256=hashlib.sha256(data).hexdigest(),
    )


def _array_of(content: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One of the arrays that a hand needs, in float64 or int64. Raises CheckpointError, as `read_pickle`."""
    if name not in content:
        raise CheckpointError(f"has no '{name}', which a hand needs")
    try:
        array = (_integers if name in _WHOLE else _array)(content[name], shape)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"has '{name}' in a form that no hand model has ({error})") from error
    if array.shape != shape:
        found, wanted = (" x ".join(map(str, each)) or "a single number" for each in (array.shape, shape))
        raise CheckpointError(f"has '{name}' of {found}, but a hand's is {wanted}")
    return array.astype(np.int64 if name in _WHOLE else np.float64)


def _array(value: Any, shape: tuple[int, ...], nested: int = 2) -> np.ndarray:
    """What a plain array, a sparse one or chumpy's stands for. `nested` is how deep chumpy's may lie in each other."""
    match value:
        case Made("array", _, (_, tuple(sides), dtype, order, data)):
            return _filled(data, dtype, sides, "F" if order else "C")
        case Made("buffer", (data, dtype, tuple(sides), "C" | "F" as order)):
            return _filled(data, dtype, sides, order)
        case Made("csc" | "csr" | "coo", _, dict(state)):
            return _dense(value.kind, state, shape)
        case Made("Ch", _, {"x": inner}) if nested:
            return _array(inner, shape, nested - 1)
        case Made("Select", _, {"a": inner, "idxs": places, "preferred_shape": sides}) if nested and sides == shape:
            chosen = _integers(places, ())
            return _array(inner, shape, nested - 1).ravel()[chosen].reshape(shape)
    raise ValueError("it is no array")


def _integers(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _array(value, shape)
    if array.dtype.kind not in "iu":
        raise ValueError("its numbers are no integers")
    return array.astype(np.int64)


def _filled(data: Any, dtype: Any, sides: tuple[Any, ...], order: Any) -> np.ndarray:
    """The array of `sides` whose numbers are these bytes, or text with a character for each."""
    match data:
        case Made("encode", (str(text), "latin1" | "latin-1")) | str(text):
            data = text.encode("latin-1")
    kind = _dtype(dtype)
    if not isinstance(data, bytes | bytearray) or not all(type(side) is int and side >= 0 for side in sides):
        raise ValueError("it is no array of numbers")
    if math.prod(sides) * kind.itemsize != len(data):
        raise ValueError(f"{len(data):,} bytes for {' x '.join(map(str, sides))} numbers of {kind.itemsize}")
    return np.frombuffer(data, kind).reshape(sides, order=order)


def _dtype(made: Any) -> np.dtype:
    match made:
        case Made("dtype", (str(code), *_), (_, "<" | ">" | "|" | "=" as order, *_)) if (
            len(code) == 2 and code[0] in "fiub"
        ):
            return np.dtype(order + code)
    raise ValueError("its numbers are no reals or integers")


def _dense(form: str, state: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """A sparse matrix as a full one; entries of the same place add up. Its shape is asked for before room is made."""
    if state["_shape"] != shape:
        raise ValueError(f"it has not the shape {shape} of a hand's")
    values = _array(state["data"], ())
    if form == "coo":
        rows, columns = (_integers(each, ()) for each in state.get("coords") or (state["row"], state["col"]))
    else:
        others, starts = (_integers(state[name], ()) for name in ("indices", "indptr"))
        length = shape[1] if form == "csc" else shape[0]
        if starts.shape != (length + 1,) or starts[0] != 0 or starts[-1] != len(others) or (np.diff(starts) < 0).any():
            raise ValueError("its indptr does not rise from 0 to the number of entries")
        own = np.repeat(np.arange(length), np.diff(starts))
        rows, columns = (others, own) if form == "csc" else (own, others)
    if not (0 <= rows.min() <= rows.max() < shape[0] and 0 <= columns.min() <= columns.max() < shape[1]):
        raise ValueError("an entry lies outside of it")
    if not np.isfinite(values).all():
        raise ValueError("some of its values are not finite")
    dense = np.zeros(shape)
    np.add.at(dense, (rows, columns), values)
    return dense
