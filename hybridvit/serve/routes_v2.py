"""The Open Inference Protocol v2: what KServe's, Triton's and other clients ask.

Each model is offered under two names with one queue: NAME takes the bytes of pictures and gives answers, NAME.tensor
takes what the graph takes and gives what it gives.
"""

from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import hybridvit
from hybridvit.serve.documented_v2 import ANSWERS, BODY, as_json
from hybridvit.serve.models import Models
from hybridvit.serve.offers import VERSION, Offer, shown
from hybridvit.serve.offers import offer as offered
from hybridvit.serve.protocol_v2 import PREFIX, TooMuchJSON, read_request, write_answer
from hybridvit.serve.refusals import BadRequest, TooLarge, within
from hybridvit.serve.requests import noted
from hybridvit.serve.tensors import BadTensors
from hybridvit.serve.uploads import while_connected

HEADER_LENGTH = "Inference-Header-Content-Length"


class Protocol:
    """Answers requests of the protocol."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def infer(self, http: Request, name: str, version: str = VERSION) -> Response:
        """The response to a request. Raises Refusal, ClientGone."""
        offer = offered(self._models, name, version)
        note = noted(http.scope)
        note["model"] = offer.served.name
        offer.served.check()
        body = await self._models.bodies.read(http)
        note["bytes"] = len(body)
        try:
            async with within(self._models.limits.deadline):
                return await while_connected(http, self._answer(offer, body, http.headers.get(HEADER_LENGTH), note))
        finally:
            self._models.bodies.release(len(body))

    async def _answer(self, offer: Offer, body: bytes, length: str | None, note: dict[str, Any]) -> Response:
        if length is not None and not (length.isdecimal() and len(length) < 12):
            raise BadRequest(f"{HEADER_LENGTH} is '{shown(length)}', but it must be a number of bytes.")
        pool = self._models.pool
        try:
            request = await pool.do(partial(read_request, body, None if length is None else int(length)))
        except TooMuchJSON as error:
            raise TooLarge(str(error)) from error
        except BadTensors as error:
            raise BadRequest(str(error)) from error
        tensors = await offer.answer(request, note)
        write = partial(write_answer, tensors, model_name=offer.name, model_version=VERSION, request=request)
        content, num_json = await pool.do(write)
        if num_json is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(num_json)})


def router(models: Models) -> APIRouter:
    """The routes of the protocol for `models`."""
    protocol, routes = Protocol(models), APIRouter(prefix=PREFIX, default_response_class=Response)

    @routes.get("", summary="What this server is", responses=as_json())
    async def server() -> Response:
        return JSONResponse(
            {"name": "hybridvit", "version": hybridvit.__version__, "extensions": ["binary_tensor_data"]}
        )

    @routes.get("/health/live", summary="Whether the server runs", responses=as_json())
    async def live() -> Response:
        return JSONResponse({"live": True})

    @routes.get("/health/ready", summary="Whether every model answers", responses=as_json(503))
    async def ready() -> Response:
        is_ready = not models.trouble()
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    for place in ("/models/{name}", "/models/{name}/versions/{version}"):
        _add_model(routes, place, protocol, models)
    return routes


def _add_model(routes: APIRouter, place: str, protocol: Protocol, models: Models) -> None:
    """The routes of one model; where `place` has no version it is the only one."""

    @routes.get(place, summary="What a model takes and gives", responses=as_json(404))
    async def metadata(name: str, version: str = VERSION) -> Response:
        return JSONResponse(offered(models, name, version).metadata())

    @routes.get(f"{place}/ready", summary="Whether a model answers", responses=as_json(404, 503))
    async def ready(name: str, version: str = VERSION) -> Response:
        is_ready = offered(models, name, version).served.is_ready
        return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    @routes.post(f"{place}/infer", summary="Answer to tensors", responses=ANSWERS, openapi_extra=BODY)
    async def infer(request: Request, name: str, version: str = VERSION) -> Response:
        return await protocol.infer(request, name, version)
