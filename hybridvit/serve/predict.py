"""`POST /predict`: the bytes of a picture in, the answer out."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hybridvit.errors import nearest
from hybridvit.scores import Result
from hybridvit.serve.limits import MOST_ENTRIES
from hybridvit.serve.metrics import Metrics
from hybridvit.serve.models import Models
from hybridvit.serve.refusals import BadRequest, NotAnImage, within
from hybridvit.serve.requests import noted
from hybridvit.serve.served import Served
from hybridvit.serve.uploads import while_connected

NO_PICTURES = ("multipart/form-data", "application/json")  # content types of bodies that are not a picture's own bytes
SWITCH = {"0": False, "1": True, "false": False, "true": True}
_NUMBER = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The query of a request."""

    model: str | None = None
    top: int | None = None
    picture: bool = False
    overlay: str | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Asked":
        """From the text behind the question mark. Raises BadRequest."""
        names = [field.name for field in fields(cls)]
        for name in query:
            if name not in names:
                raise BadRequest(f"The query has no '{name[:40]}'. {nearest(name[:40], names)}.")
        top, picture = query.get("top"), query.get("picture", "0")
        if top is not None and not (_NUMBER.fullmatch(top) and 1 <= int(top) <= MOST_ENTRIES):
            raise BadRequest(f"top is '{top[:40]}', but it must be a whole number from 1 to {MOST_ENTRIES}.")
        if picture not in SWITCH:
            raise BadRequest(f"picture is '{picture[:40]}', but it must be one of {', '.join(SWITCH)}.")
        overlay = query.get("overlay")
        if overlay is not None and (SWITCH[picture] or top is not None):
            raise BadRequest("An overlay is a picture of its own. Ask for it without top and picture.")
        return cls(
            model=query.get("model"),
            top=None if top is None else int(top),
            picture=SWITCH[picture],
            overlay=overlay,
        )


class Predicting:
    """Answers to pictures."""

    def __init__(self, *, models: Models, metrics: Metrics) -> None:
        self._models = models
        self._bodies, self._pool = models.bodies, models.pool
        for served in models.values():
            served.on_batch = lambda size, ms: metrics.batch_size.observe(size)
            served.on_restart = metrics.worker_restarts.inc

    async def answer(self, request: Request) -> Response:
        """The response. Raises Refusal, ClientGone."""
        note = noted(request.scope)
        note["route"] = "/predict"
        asked = Asked.read(request.query_params)
        served = self._models.chosen(asked.model)
        note["model"] = served.name
        _check_kind(request)
        served.check()
        body = await self._bodies.read(request)
        note["bytes"] = len(body)
        try:
            if not body:
                raise BadRequest("The body is empty. Send the bytes of a picture: curl --data-binary @photo.jpg URL.")
            async with within(self._models.limits.deadline):
                return await while_connected(request, self._answer(served, body, asked, note))
        finally:
            self._bodies.release(len(body))

    async def _answer(self, served: Served, body: bytes, asked: Asked, note: dict[str, Any]) -> Response:
        prepared = await self._pool.prepare(body, served.card)
        if asked.overlay is not None:
            return Response(await served.overlay(asked.overlay, prepared.image), media_type="image/png")
        answered = await served.ask(prepared.images)
        (result,) = served.results(answered.outputs, [prepared.frame], asked.top)
        ms = {"decode": prepared.ms, "queue": answered.queue_ms, "compute": answered.compute_ms}
        note |= {"ms": ms, "batch": answered.batch}
        if asked.picture:
            return Response(await self._pool.draw(body, served.card, result), media_type="image/png")
        content = {
            "model": served.name,
            "task": served.card.task,
            **result.to_dict(),
            "lies_in_picture": result.lies_in_picture,
            **({"colours": colours} if (colours := _colours(result)) else {}),
            "size": list(prepared.size),
            "ms": {stage: round(value, 2) for stage, value in ms.items()},
            "batch": answered.batch,
            "request_id": note["request_id"],
        }
        return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")


def _colours(result: Result) -> dict[str, str]:
    """Those of the classes in the drawing, as pages write them."""
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in result.colours.items()}


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in NO_PICTURES:
        raise NotAnImage(
            f"The body is {kind}, but it has to be the bytes of a picture alone. Run: "
            f"curl --data-binary @photo.jpg {request.url.scheme}://{request.url.netloc}/predict"
        )
