"""Requests and answers of the Open Inference Protocol v2: JSON, or JSON with tensors as bytes behind it.

As KServe describes the protocol ("Open Inference Protocol V2", its data plane over HTTP) and Triton its extension
"binary tensor data". Nothing here waits or computes: bytes in, bytes out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hybridvit.errors import nearest
from hybridvit.serve.tensors import BYTES, DTYPES, BadTensors, Tensor, as_bytes, as_json, from_bytes, from_json, refuse

MOST_TENSORS, MOST_AXES, MOST_DEEP = 64, 8, 32
MOST_JSON_BYTES = 1_000_000  # parsing takes the interpreter from all other clients
MOST_TENSOR_BYTES = 1 << 30
LONGEST_NAME = 100  # letters
PREFIX = "/v2"  # of its addresses
_OF_REQUEST = ("id", "model_name", "model_version", "parameters", "inputs", "outputs")  # kserve sends the model's name
_OF_INPUT = ("name", "shape", "datatype", "parameters", "data")
_OF_OUTPUT = ("name", "parameters")


def error_of(code: str, message: str) -> dict[str, str]:
    """What a response says of an error: clients show this string."""
    return {"error": f"{code}: {message}"}


class TooMuchJSON(BadTensors):
    """A request whose JSON is larger than this server parses."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sends to be answered."""

    inputs: tuple[Tensor, ...]
    outputs: Mapping[str, bool]
    """The outputs that are wanted, and whether as bytes; empty: all."""
    is_binary: bool = False  # whether all are wanted as bytes
    id: str | None = None
    top: int | None = None  # entries of an answer that is a list


def read_request(body: bytes, header_bytes: int | None = None) -> Request:
    """A request from its body, whose first `header_bytes` are JSON and the rest tensors; without it all is JSON.

    Strings of BYTES in JSON are base64, as files are no text. Raises BadTensors (TooMuchJSON for more of it than is
    parsed), with value, rule and fix.
    """
    if header_bytes is not None and header_bytes > len(body):
        refuse(
            f"Inference-Header-Content-Length is {header_bytes}, but the body has {len(body)} bytes",
            "Send the length of the JSON that the body begins with",
        )
    size = len(body) if header_bytes is None else header_bytes
    if size > MOST_JSON_BYTES:
        raise TooMuchJSON(
            f"The JSON has {size:,} bytes, but at most {MOST_JSON_BYTES:,} are read. Send tensors as bytes behind it "
            "(binary_data_size)."
        )
    request = _object(_parsed(body[:size]), "The request", _OF_REQUEST)
    parameters = _parameters(request, "The request", ("binary_data_output", "top"))
    identity, top = request.get("id"), parameters.get("top")
    if identity is not None and not isinstance(identity, str):
        refuse("The id is no string", "Send one, or none")
    is_binary = _flag(parameters, "binary_data_output", False)
    return Request(
        id=identity,
        top=None if top is None else _count(top, "top", least=1),
        is_binary=is_binary,
        outputs=_outputs(request, is_binary),
        inputs=_inputs(request, memoryview(body)[size:]),
    )


def write_answer(
    outputs: Sequence[Tensor], *, model_name: str, model_version: str, request: Request
) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON where tensors as bytes follow.

    BYTES in JSON are text, or base64 where one of them is none: then the output's parameters have "base64".
    """
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor in outputs:
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.values.shape)}
        if request.outputs.get(tensor.name, request.is_binary):
            parts.append(as_bytes(tensor.values))
            described.append(entry | {"parameters": {"binary_data_size": len(parts[-1])}})
        else:
            described.append(entry | as_json(tensor.values))
    identity = {} if request.id is None else {"id": request.id}
    answer = {"model_name": model_name, "model_version": model_version, **identity, "outputs": described}
    header = json.dumps(answer, allow_nan=False).encode()
    return b"".join([header, *parts]), len(header) if parts else None


def _parsed(text: bytes) -> Any:
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # of UTF-8, of JSON, of numbers with very many digits, of depth
        refuse(f"The request is no JSON ({str(error)[:100]})", "Send JSON, and its length if bytes follow it", error)
    level = [value]
    for _ in range(MOST_DEEP):
        level = [
            child
            for each in level
            if isinstance(each, list | dict)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    if any(isinstance(each, list | dict) for each in level):
        refuse(f"The JSON is more than {MOST_DEEP} levels deep", "Send the shape beside a flat list")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _inputs(request: Mapping[str, Any], tail: memoryview) -> tuple[Tensor, ...]:
    """The tensors that are described, from JSON or from the bytes behind it, which must be exactly theirs."""
    entries = _entries(request, "inputs", _OF_INPUT)
    if not entries:
        refuse("The request has no inputs", "Send at least one")
    sizes = [_binary_size(entry) for entry in entries]
    if (total := sum(size or 0 for size in sizes)) != len(tail):
        refuse(
            f"The inputs' binary_data_size are {total} in all, but {len(tail)} bytes follow the JSON",
            "Send as many, and the length of the JSON as Inference-Header-Content-Length",
        )
    tensors, start = [], 0
    for entry, size in zip(entries, sizes, strict=True):
        name, datatype = entry["name"], entry.get("datatype")
        if not isinstance(datatype, str) or (datatype != BYTES and datatype not in DTYPES):
            refuse(f"Input '{name}' has no datatype that there is", f"Send {', '.join([*DTYPES, BYTES])}")
        shape = _shape(entry, datatype)
        if (size is None) == (entry.get("data") is None):
            refuse(f"Input '{name}' has not one of data and binary_data_size", "Send one of the two")
        if size is None:
            values = from_json(entry["data"], datatype, shape, name)
        else:
            values = from_bytes(tail[start : start + size], datatype, shape, name)
            start += size
        tensors.append(Tensor(name=name, values=values))
    return tuple(tensors)


def _outputs(request: Mapping[str, Any], is_binary: bool) -> dict[str, bool]:
    """Whether as bytes, of each output that is asked for."""
    return {
        entry["name"]: _flag(
            _parameters(entry, f"Output '{entry['name']}'", ("binary_data",)), "binary_data", is_binary
        )
        for entry in _entries(request, "outputs", _OF_OUTPUT)
    }


def _entries(request: Mapping[str, Any], key: str, known: Sequence[str]) -> list[dict[str, Any]]:
    """The descriptions of inputs or outputs, each an object with a name of its own."""
    entries = request.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list) or len(entries) > MOST_TENSORS:
        refuse(f"The {key} are no list of at most {MOST_TENSORS}", "Send one")
    for place, entry in enumerate(entries):
        name = _object(entry, f"{key}[{place}]", known).get("name")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            refuse(f"{key}[{place}] has no name of at most {LONGEST_NAME} printable letters", "Send one as a string")
    if len({entry["name"] for entry in entries}) < len(entries):
        refuse(f"The {key} have a name twice", "Send each once")
    return entries


def _shape(entry: Mapping[str, Any], datatype: str) -> tuple[int, ...]:
    shape, name = entry.get("shape"), f"input '{entry['name']}'"
    if not isinstance(shape, list) or len(shape) > MOST_AXES:
        refuse(f"The shape of {name} is no list of at most {MOST_AXES} numbers", "Send one")
    sides = tuple(_count(side, f"A side of {name}") for side in shape)
    num_bytes = math.prod(sides) * (4 if datatype == BYTES else DTYPES[datatype].itemsize)
    if num_bytes > MOST_TENSOR_BYTES:
        refuse(f"The shape of {name} makes {num_bytes:,} bytes, more than {MOST_TENSOR_BYTES:,}", "Send fewer at once")
    return sides


def _object(value: Any, what: str, known: Sequence[str]) -> dict[str, Any]:
    """An object of JSON without keys that mean nothing here."""
    if not isinstance(value, dict):
        refuse(f"{what} is no object of JSON", "Send one")
    unknown = [key for key in value if key not in known]
    if unknown:
        refuse(f"{what} has '{unknown[0][:50]}', which means nothing here", nearest(unknown[0][:50], known))
    return value


def _parameters(value: Mapping[str, Any], what: str, known: Sequence[str]) -> dict[str, Any]:
    given = value.get("parameters")
    return {} if given is None else _object(given, f"{what}: parameters", known)


def _binary_size(entry: Mapping[str, Any]) -> int | None:
    name = f"Input '{entry['name']}'"
    size = _parameters(entry, name, ("binary_data_size",)).get("binary_data_size")
    return None if size is None else _count(size, f"{name}: binary_data_size")


def _flag(parameters: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        refuse(f"{name} is neither true nor false", "Send one of these")
    return value


def _count(value: Any, what: str, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= MOST_TENSOR_BYTES:
        refuse(f"{what} is no whole number from {least} to {MOST_TENSOR_BYTES:,}", "Send one")
    return value
