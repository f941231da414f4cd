"""What the schema of the service says of the Open Inference Protocol v2."""

from typing import Any

from hybridvit.serve.documented import refused_as
from hybridvit.serve.protocol_v2 import MOST_AXES, MOST_TENSORS
from hybridvit.serve.tensors import BYTES, DTYPES

_NAME = {"type": "string", "minLength": 1, "maxLength": 100}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "code: message"}},
}
_PLAIN: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "shape": {"type": "array", "maxItems": MOST_AXES, "items": {"type": "integer", "minimum": 0}},
        "datatype": {"enum": [*DTYPES, BYTES]},
        "data": {"type": "array", "items": {}, "description": "flat or nested; strings of BYTES are base64"},
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
        },
    },
}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"binary_data": {"type": "boolean"}},
        },
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"binary_data_output": {"type": "boolean"}, "top": {"type": "integer", "minimum": 1}},
        },
        "inputs": {"type": "array", "minItems": 1, "maxItems": MOST_TENSORS, "items": _TENSOR},
        "outputs": {"type": "array", "maxItems": MOST_TENSORS, "items": _OUTPUT},
    },
}
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON, or as many bytes of it as Inference-Header-Content-Length says, and tensors behind it",
        "content": {"application/json": {"schema": _REQUEST}, **_BINARY},
    }
}


Responses = dict[int | str, dict[str, Any]]


def as_json(*refused: int) -> Responses:
    """The responses of a route that answers JSON, and refuses with some statuses."""
    answer: Responses = {200: {"description": "The answer", "content": _PLAIN}}
    return answer | {status: {"description": "Refused, or not ready", "content": _PLAIN} for status in refused}


ANSWERS: Responses = {200: {"description": "The outputs", "content": _PLAIN | _BINARY}}
ANSWERS |= {int(status): told for status, told in refused_as(_ERROR).items()}
