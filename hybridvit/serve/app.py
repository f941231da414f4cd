"""The routes of a service. `create_app` makes a plain ASGI application, so that any server can host it."""

import json
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.serve.documented import PREDICT
from hybridvit.serve.limits import DEFAULTS
from hybridvit.serve.metrics import CONTENT_TYPE, Metrics
from hybridvit.serve.models import Models, named
from hybridvit.serve.pages import BENCH, HEADERS, PAGE, PageFiles
from hybridvit.serve.predict import Predicting
from hybridvit.serve.refusals import Refusal
from hybridvit.serve.requests import Requests, refusal_response
from hybridvit.serve.routes_v2 import router
from hybridvit.serve.served import Model
from hybridvit.serve.told import told

JSON = "application/json"


def create_app(models: Models, *, metrics: Metrics | None = None, bench: Path | None = None) -> FastAPI:
    """The application that answers for `models`, which it starts and stops unless they are started already.

    `bench` is the folder of a page that measures in the browser, to be served too.
    """
    metrics = metrics or Metrics()

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        await models.start()
        yield
        await models.stop()

    app = FastAPI(
        title="hybridvit",
        version=hybridvit.__version__,
        description="Answers to pictures.",
        docs_url=None,  # it would load scripts from another host
        redoc_url=None,
        lifespan=running,
    )
    app.add_middleware(Requests, metrics=metrics)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    _add_pages(app)
    _add_health(app, models, metrics)
    _add_predict(app, Predicting(models=models, metrics=metrics))
    app.include_router(router(models))
    if bench is not None:
        app.mount(BENCH, PageFiles(directory=bench, html=True))
    return app


def from_env() -> FastAPI:
    """The application for the models that HYBRIDVIT_MODELS names, as `hybridvit serve` takes them, with usual limits.

    For servers that are given a factory, as in `uvicorn --factory hybridvit.serve.app:from_env`. Raises UsageError.
    """
    words = shlex.split(os.environ.get("HYBRIDVIT_MODELS", ""))
    if not words:
        raise UsageError("HYBRIDVIT_MODELS names no model. Set it to files, such as 'model.onnx small=small.onnx'.")
    return create_app(Models([Model(name=name, path=path) for name, path in named(words).items()], DEFAULTS))


def _add_pages(app: FastAPI) -> None:
    """The page, and what belongs to it."""
    files = PageFiles(directory=PAGE)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await asset(request, "index.html")

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        return await files.get_response(name, request.scope)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(
            '<!doctype html><title>hybridvit</title><a href="/openapi.json">The schema of this service</a>',
            media_type="text/html",
            headers=HEADERS,
        )


def _add_health(app: FastAPI, models: Models, metrics: Metrics) -> None:
    """What balancers and monitors ask."""

    @app.get("/healthz", summary="Whether the server runs", response_class=Response, responses=_plain(JSON))
    async def alive() -> Response:
        return _json({"live": True})

    @app.get(
        "/readyz",
        summary="Whether every model answers",
        response_class=Response,
        responses=_plain(JSON) | {503: {"description": "Some do not, by name", "content": {JSON: {}}}},
    )
    async def ready() -> Response:
        trouble = models.trouble()
        return _json({"ready": not trouble, "not_ready": trouble}, 503 if trouble else 200)

    @app.get("/models", summary="What is served", response_class=Response, responses=_plain(JSON))
    async def listed() -> Response:
        return _json([told(served) for served in models.values()])

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=Response, responses=_plain(CONTENT_TYPE))
    async def numbers() -> Response:
        for name, served in models.items():
            metrics.queue_length.labels(name).set(served.num_waiting)
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_predict(app: FastAPI, predicting: Predicting) -> None:
    """A plain route, for FastAPI takes a sixth of a request's time to read a query; so its schema is written out."""
    app.router.add_route("/predict", predicting.answer, methods=["POST"], include_in_schema=False)

    def schema() -> dict[str, Any]:
        made = FastAPI.openapi(app)
        made["paths"]["/predict"] = PREDICT
        return made

    app.openapi = schema  # type: ignore[method-assign]  # as FastAPI's guide has it


def _plain(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "The answer", "content": {kind: {}}}}


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content, ensure_ascii=False), status, media_type=JSON)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refusal_response(request.scope, error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "wrong_method"}
    messages = {404: "There is nothing at this address. See /openapi.json.", 405: "This address takes another method."}
    return refusal_response(
        request.scope,
        messages.get(error.status_code, str(error.detail)),
        code=codes.get(error.status_code, "bad_request"),
        status=error.status_code,
        headers=dict(error.headers or {}),
    )
