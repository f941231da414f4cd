"""`POST /predict`: the bytes of a picture in, the answer out."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hybridvit.serve.metrics import Metrics
from hybridvit.serve.models import Models
from hybridvit.serve.refusals import BadRequest, Deadline, NotAnImage
from hybridvit.serve.requests import noted
from hybridvit.serve.served import Served
from hybridvit.serve.uploads import Bodies, while_connected

NO_PICTURES = ("multipart/form-data", "application/json")  # content types of bodies that are not a picture's own bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The query of a request."""

    model: str | None = None
    top: int | None = None
    picture: bool = False


class Predicting:
    """Answers to pictures."""

    def __init__(self, *, models: Models, metrics: Metrics) -> None:
        self._models, self._metrics = models, metrics
        self._bodies, self._pool = Bodies(models.limits), models.pool
        for served in models.values():
            served.on_batch = lambda size, ms: metrics.batch_size.observe(size)
            served.on_restart = metrics.worker_restarts.inc

    async def answer(self, request: Request, asked: Asked) -> Response:
        """The response. Raises Refusal, ClientGone."""
        served = self._models.chosen(asked.model)
        note = noted(request.scope)
        note["model"] = served.name
        _check_kind(request)
        served.check()
        body = await self._bodies.read(request)
        note["bytes"] = len(body)
        try:
            if not body:
                raise BadRequest("The body is empty. Send the bytes of a picture: curl --data-binary @photo.jpg URL.")
            return await while_connected(request, self._in_time(served, body, asked, note))
        finally:
            self._bodies.release(len(body))

    async def _in_time(self, served: Served, body: bytes, asked: Asked, note: dict[str, Any]) -> Response:
        deadline_s = self._models.limits.deadline
        try:
            async with asyncio.timeout(deadline_s):
                return await self._answer(served, body, asked, note)
        except TimeoutError:
            raise Deadline(
                f"The answer took longer than {deadline_s:g} seconds. Ask again, or serve with a longer --deadline."
            ) from None

    async def _answer(self, served: Served, body: bytes, asked: Asked, note: dict[str, Any]) -> Response:
        prepared = await self._pool.prepare(body, served.card)
        answered = await served.ask(prepared.images, self._models.limits.deadline)
        (result,) = served.results(answered.outputs, [prepared.frame], asked.top)
        ms = {"decode": prepared.ms, "queue": answered.queue_ms, "compute": answered.compute_ms}
        self._metrics.stages(**ms)
        note["batch"] = answered.batch
        if asked.picture:
            return Response(await self._pool.draw(body, served.card, result), media_type="image/png")
        content = {
            "model": served.name,
            "task": served.card.task,
            **result.to_dict(),
            "size": list(prepared.size),
            "ms": {stage: round(value, 2) for stage, value in ms.items()},
            "batch": answered.batch,
            "request_id": note["request_id"],
        }
        return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in NO_PICTURES:
        raise NotAnImage(
            f"The body is {kind}, but it has to be the bytes of a picture alone. Run: "
            f"curl --data-binary @photo.jpg {request.url.scheme}://{request.url.netloc}/predict"
        )
