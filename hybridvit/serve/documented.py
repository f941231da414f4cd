"""What the schema of the service says of bodies and refusals."""

from typing import Any

from hybridvit.serve.refusals import EVERY

EXAMPLE = {
    "model": "digits",
    "task": "classify",
    "predictions": [{"class": "7", "index": 7, "probability": 0.998123}],
    "size": [32, 32],
    "ms": {"decode": 1.2, "queue": 0.4, "compute": 3.1},
    "batch": 4,
    "request_id": "5d2c",
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the bytes of a picture: curl --data-binary @photo.jpg URL/predict",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("application/octet-stream", "image/jpeg", "image/png")
        },
    }
}
ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["error", "message", "request_id"],
    "properties": {name: {"type": "string"} for name in ("error", "message", "request_id")},
}


def refused_as() -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, by status, each with its codes."""
    by_status: dict[int | str, list[str]] = {}
    for refusal in EVERY:
        by_status.setdefault(refusal.status, []).append(refusal.code)
    return {
        status: {"description": " or ".join(codes), "content": {"application/json": {"schema": ENVELOPE}}}
        for status, codes in by_status.items()
    }
