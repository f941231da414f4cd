"""Around every request: an id, one line of log, metrics, headers, and an answer where something went wrong."""

import json
import logging
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridvit.serve.metrics import Metrics
from hybridvit.serve.protocol_v2 import PREFIX, error_of
from hybridvit.serve.refusals import Internal, NotFinite, Refusal
from hybridvit.serve.uploads import ClientGone
from hybridvit.stderr import remark

logger = logging.getLogger(__name__)

CLIENT_GONE = 499  # what logs call an answer that nobody waited for
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def noted(scope: Scope) -> dict[str, Any]:
    """What is known of a request: "request_id", and for its line of log "model", "error" and others, once known.

    "ms" are its stages in milliseconds, for the metrics.
    """
    return scope.setdefault("state", {}).setdefault("hybridvit", {"request_id": ""})


def refusal_response(
    scope: Scope,
    refusal: Refusal | str,
    *,
    code: str = "",
    status: int = 0,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The envelope that every error comes in."""
    if isinstance(refusal, Refusal):
        code, status, headers = refusal.code, refusal.status, refusal.headers
    noted(scope)["error"] = code
    content = {"error": code, "message": str(refusal), "request_id": noted(scope)["request_id"]}
    if f"{scope['path']}/".startswith(f"{PREFIX}/"):
        content = error_of(code, str(refusal))
    text = json.dumps(content, ensure_ascii=False).encode(errors="replace")  # what was sent may be no text
    return Response(text, status, media_type="application/json", headers=dict(headers or {}))


class Requests:
    """ASGI middleware; Starlette's own base class hides that a client is gone."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        note = noted(scope)
        note["request_id"] = request_id = _request_id(scope)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientGone:
            status = CLIENT_GONE
            self._metrics.cancelled.inc()
        except Exception:
            logger.exception("request %s", request_id)
            if status:
                raise
            refusal = Internal("A fault of the server. Its log tells more under the request_id.")
            await refusal_response(scope, refusal)(scope, receive, sending)
        finally:
            self._count(scope, note, status, time.perf_counter() - began)

    def _count(self, scope: Scope, note: dict[str, Any], status: int, seconds: float) -> None:
        model = note.get("model", "")
        self._metrics.requests.labels(model, str(status)).inc()
        self._metrics.request_seconds.labels(model).observe(seconds)
        self._metrics.stages(**note.get("ms", {}))
        if note.get("error") == NotFinite.code:
            self._metrics.not_finite.inc()
        route = scope.get("route")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": note["request_id"],
            "method": scope["method"],
            "route": note.get("route") or getattr(route, "path", ""),  # not the address, which may be private
            "status": status,
            "ms": round(seconds * 1e3, 2),
        }
        line |= {key: note[key] for key in ("model", "error", "bytes", "batch") if key in note}
        remark(json.dumps(line))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(text := value.decode("latin-1")):
            return text
    return f"{random.getrandbits(64):016x}"
