"""A file with the very structure of MANO_RIGHT.pkl, as Python 2 and chumpy wrote it, and none of its data."""

import copyreg
import io
import pickle
import struct
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from hybridvit.tasks.hand.mano.file import TIPS
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import PARENTS

OLD_NAMES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "builtins": "__builtin__",
    "copyreg": "copy_reg",
    "scipy.sparse._csc": "scipy.sparse.csc",
}


def made(module: str, name: str, **state: Any) -> Any:
    """An instance of a class that is not installed."""
    instance = type(name, (object,), {"__module__": module})()
    instance.__dict__ |= state
    return instance


class Writer(pickle._Pickler):
    """Names what is not installed; as Python 2 does, with bytes as text and sets made of lists, if `old`."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def __init__(self, file: io.BytesIO, protocol: int, *, old: bool) -> None:
        super().__init__(file, protocol)
        self.old = old

    def save_name(self, value: Any, name: str | None = None) -> None:
        module = value.__module__
        if self.proto >= 4:
            self.save(module)
            self.save(value.__name__)
            self.write(pickle.STACK_GLOBAL)
        else:
            module = OLD_NAMES.get(module, module) if self.old else module
            self.write(f"c{module}\n{value.__name__}\n".encode())
        self.memoize(value)

    def save_text(self, value: str | bytes) -> None:
        if not self.old:
            pickle._Pickler.dispatch[type(value)](self, value)
            return
        data = value if isinstance(value, bytes) else value.encode("latin-1")
        short = len(data) < 256
        self.write((b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data)
        self.memoize(value)

    def save_set(self, value: set[Any]) -> None:
        if self.old:
            self.save_reduce(set, (list(value),), obj=value)
        else:
            pickle._Pickler.dispatch[set](self, value)

    dispatch |= {str: save_text, bytes: save_text, set: save_set}
    dispatch |= dict.fromkeys((type, FunctionType, BuiltinFunctionType), save_name)


assert copyreg.__name__ in OLD_NAMES  # protocol 2 writes none of its functions


def dumped(content: Any, *, protocol: int = 2, old: bool = True) -> bytes:
    """A pickle of the content."""
    file = io.BytesIO()
    Writer(file, protocol, old=old).dump(content)
    return file.getvalue()


def bookkeeping() -> dict[str, Any]:
    """What chumpy's objects hold besides their values."""
    return {"_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}, "_make_dense": False, "_make_sparse": False}


def in_manos_order() -> HandAssets:
    """The generated hand with its fingertips where MANO has them."""
    from dataclasses import replace

    hand = generated_hand()
    order = np.arange(len(hand.v_template))  # the old number of each new vertex
    for place, tip in zip(TIPS, hand.tips, strict=True):
        at = int(np.flatnonzero(order == tip)[0])
        order[[place, at]] = order[[at, place]]
    new = np.argsort(order)
    return replace(
        hand,
        v_template=hand.v_template[order],
        shapedirs=hand.shapedirs[order],
        posedirs=hand.posedirs[order],
        joint_regressor=hand.joint_regressor[:, order],
        weights=hand.weights[order],
        faces=new[hand.faces],
        tips=new[hand.tips],
    )


def plain(hand: HandAssets) -> dict[str, Any]:
    """The hand by MANO's names, all arrays plain ones."""
    kintree = np.array([PARENTS, range(16)])
    kintree[0, 0] = 2**32 - 1
    return {
        "v_template": hand.v_template,
        "shapedirs": hand.shapedirs,
        "posedirs": hand.posedirs,
        "J_regressor": hand.joint_regressor,
        "weights": hand.weights,
        "hands_mean": hand.pose_mean,
        "hands_components": hand.pose_components,
        "hands_coeffs": np.zeros((1554, 45)),
        "kintree_table": kintree,
        "f": hand.faces.astype(np.uint32),
        "J": hand.joint_regressor @ hand.v_template,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def sparse(regressor: np.ndarray, **changes: Any) -> Any:
    """As scipy's csc_matrix is pickled."""
    rows, columns = np.nonzero(regressor.T)[::-1]
    state = {
        "_shape": regressor.shape,
        "data": regressor[rows, columns],
        "indices": rows.astype(np.int32),
        "indptr": np.append(0, np.cumsum(np.bincount(columns, minlength=regressor.shape[1]))).astype(np.int32),
        "maxprint": 50,
    }
    return made("scipy.sparse._csc", "csc_matrix", **(state | changes))


def chosen(shapedirs: np.ndarray, **changes: Any) -> Any:
    """As chumpy's first ten of twenty shapes are pickled."""
    vertices = len(shapedirs)
    twenty = np.concatenate([shapedirs, np.full_like(shapedirs, 7)], axis=2)
    numbers = np.arange(twenty.size).reshape(twenty.shape)[:, :, :10].ravel()
    whole = made("chumpy.ch", "Ch", x=twenty, **bookkeeping())
    state = {"a": whole, "idxs": numbers, "preferred_shape": (vertices, 3, 10), **bookkeeping()}
    return made("chumpy.reordering", "Select", **(state | changes))


def content(hand: HandAssets, **changes: Any) -> dict[str, Any]:
    """The hand as MANO's own file has it: shapes as a selection of chumpy's, the regressor sparse."""
    values = plain(hand)
    own = {"shapedirs": chosen(hand.shapedirs), "J_regressor": sparse(hand.joint_regressor)}
    return values | own | changes
