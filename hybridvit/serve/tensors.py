"""Values of tensors as the Open Inference Protocol v2 has them: in JSON, or as bytes.

Every length is checked against the values that came before memory is taken for it.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from hybridvit.errors import UsageError

BYTES = "BYTES"
DTYPES: Mapping[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    **{f"{kind.upper()}{bits}": np.dtype(f"{kind}{bits}") for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
_ALLOWED: Mapping[str, set[type]] = {"b": {bool}, "f": {int, float}}  # in JSON, by NumPy's kind; else whole numbers
_NAMES = {dtype: name for name, dtype in DTYPES.items()} | {np.dtype(object): BYTES}


class BadTensors(UsageError):
    """A request that is not one of the protocol, or not one that this server can answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """A tensor by name; strings of bytes are an array of objects."""

    name: str
    values: np.ndarray

    @property
    def datatype(self) -> str:
        """As the protocol calls it."""
        return datatype_of(self.values.dtype)


def datatype_of(dtype: np.dtype) -> str:
    """The protocol's name of NumPy's type."""
    return _NAMES[dtype]


def bytes_array(strings: Sequence[bytes]) -> np.ndarray:
    """Strings of bytes as the values of a tensor with one axis."""
    values = np.empty(len(strings), object)
    values[:] = strings
    return values


def from_bytes(part: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Values from little-endian numbers, or from strings that each stand behind their length. Raises BadTensors."""
    count = math.prod(shape)
    if datatype == BYTES:
        return _strings_of(part, count, name).reshape(shape)
    dtype = DTYPES[datatype]
    if len(part) != (wanted := count * dtype.itemsize):
        refuse(f"Input '{name}' has {len(part)} bytes, but its shape and datatype make {wanted}", "Send as many")
    return _checked(np.frombuffer(part, dtype.newbyteorder("<")).astype(dtype, copy=False), name).reshape(shape)


def as_bytes(values: np.ndarray) -> bytes:
    """The inverse of `from_bytes`."""
    if values.dtype != object:
        return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return b"".join(len(each).to_bytes(4, "little") + each for each in values.ravel().tolist())


def from_json(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Values from a list that is flat or as deep as the shape; strings of BYTES are base64. Raises BadTensors."""
    flat = _flat(data, shape, name)
    if datatype == BYTES:
        return bytes_array([_from_base64(each, name) for each in flat]).reshape(shape)
    dtype = DTYPES[datatype]
    if not {type(each) for each in flat} <= _ALLOWED.get(dtype.kind, {int}):
        refuse(f"Input '{name}' has data that is no {datatype}", "Send such values, and no strings")
    if dtype.kind != "b" and flat:
        largest = float(np.finfo(dtype).max) if dtype.kind == "f" else np.iinfo(dtype).max  # float: of any int
        smallest = -largest if dtype.kind == "f" else np.iinfo(dtype).min
        if not smallest <= min(flat) <= max(flat) <= largest:
            refuse(f"Input '{name}' has values outside of {datatype}", "Send values of its range")
    return np.array(flat, dtype).reshape(shape)


def as_json(values: np.ndarray) -> dict[str, Any]:
    """Values as keys of an output: "data", and where BYTES are no text "parameters" that say that they are base64."""
    flat = values.ravel().tolist()
    if values.dtype != object:
        return {"data": flat}
    try:
        return {"data": [each.decode() for each in flat]}
    except UnicodeDecodeError:
        return {"data": [base64.b64encode(each).decode() for each in flat], "parameters": {"base64": True}}


def refuse(wrong: str, fix: str, cause: BaseException | None = None) -> NoReturn:
    """Raise BadTensors with a text that every client can be sent, whatever was sent by it."""
    text = f"{wrong}. {fix}."
    raise BadTensors("".join(letter if letter.isprintable() else "?" for letter in text)) from cause


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        refuse(f"Input '{name}' has values that are not finite", "Send numbers")
    if values.dtype.kind == "b" and not (values.view(np.uint8) <= 1).all():
        refuse(f"Input '{name}' has values that are neither 0 nor 1", "Send these")
    return values


def _strings_of(part: memoryview, count: int, name: str) -> np.ndarray:
    """Each its length as a little-endian number of 32 bits, and so many bytes."""
    if 4 * count > len(part):
        refuse(f"Input '{name}' has {len(part)} bytes, too few for {count} strings", "Send each behind its length")
    strings, place = [], 0
    for number in range(count):
        size = int.from_bytes(part[place : place + 4], "little")
        if len(part) - place < 4 + size:
            refuse(f"Input '{name}' ends within its string {number}", "Send each behind its length in 4 bytes")
        strings.append(bytes(part[place + 4 : place + 4 + size]))
        place += 4 + size
    if place != len(part):
        refuse(f"Input '{name}' has {len(part) - place} bytes behind its last string", "Send what its shape says")
    return bytes_array(strings)


def _flat(data: Any, shape: tuple[int, ...], name: str) -> list[Any]:
    """The values in one list: that of the client, or its lists of the shape's sides joined."""
    level = data if isinstance(data, list) else [data]
    if level and isinstance(level[0], list):
        level = [level]
        for side in shape:
            if not all(isinstance(each, list) and len(each) == side for each in level):
                refuse(f"The lists of input '{name}' are not of its shape {list(shape)}", "Send a flat list")
            level = [child for each in level for child in each]
    if len(level) != (count := math.prod(shape)):
        refuse(f"Input '{name}' has {len(level)} values, but its shape makes {count}", "Send as many")
    return level


def _from_base64(text: Any, name: str) -> bytes:
    fix = "Send strings of base64 in one line, or bytes behind the JSON"
    if not isinstance(text, str):
        refuse(f"Input '{name}' has data that is no string", fix)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: of letters that are no ASCII
        refuse(f"Input '{name}' has data that is no base64 ({error})", fix, error)
