"""What the schema of the service says of bodies and refusals."""

from typing import Any

from hybridvit.serve.limits import MOST_ENTRIES
from hybridvit.serve.refusals import EVERY

EXAMPLE = {
    "model": "digits",
    "task": "classify",
    "predictions": [{"class": "7", "index": 7, "probability": 0.998123}],
    "lies_in_picture": False,
    "size": [32, 32],
    "ms": {"decode": 1.2, "queue": 0.4, "compute": 3.1},
    "batch": 4,
    "request_id": "5d2c",
}
ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["error", "message", "request_id"],
    "properties": {name: {"type": "string"} for name in ("error", "message", "request_id")},
}


def refused_as(schema: dict[str, Any] = ENVELOPE) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, by status, each with its codes; `schema` is that of their body."""
    by_status: dict[int | str, list[str]] = {}
    for refusal in EVERY:
        by_status.setdefault(str(refusal.status), []).append(refusal.code)
    return {
        status: {"description": " or ".join(codes), "content": {"application/json": {"schema": schema}}}
        for status, codes in by_status.items()
    }


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "required": False, "schema": schema}


PREDICT: dict[str, Any] = {
    "post": {
        "summary": "Answer to the picture that is the request's body",
        "operationId": "predict",
        "parameters": [
            _query("model", "one of /models; needed where there are several", {"type": "string"}),
            _query(
                "top", "entries of answers that are lists", {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES}
            ),
            _query("overlay", "one of the model's overlays: answer with it as PNG", {"type": "string"}),
            _query(
                "picture",
                "1: answer with the picture as PNG, and the answer on it",
                {"enum": ["0", "1", "false", "true"]},
            ),
        ],
        "requestBody": {
            "required": True,
            "description": "the bytes of a picture: curl --data-binary @photo.jpg URL/predict",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/octet-stream", "image/jpeg", "image/png")
            },
        },
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"example": EXAMPLE}, "image/png": {}}}
        }
        | refused_as(),
    }
}
"""`/predict`, as OpenAPI describes it."""
