"""What a model is offered as to clients of the Open Inference Protocol v2, under each of its two names."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from hybridvit.errors import nearest, some
from hybridvit.scores import Result
from hybridvit.serve.limits import MOST_ENTRIES
from hybridvit.serve.models import Models
from hybridvit.serve.protocol_v2 import Request
from hybridvit.serve.refusals import BadRequest, NoSuchModel, NotFinite
from hybridvit.serve.served import Served
from hybridvit.serve.signature import ANY
from hybridvit.serve.tensors import BYTES, Tensor, bytes_array
from hybridvit.serve.uploads import Prepared

VERSION = "1"  # of every model: a file does not change
OF_TENSORS = ".tensor"  # behind a model's name: its graph
IMAGE = "image"
Done = TypeVar("Done")


class Offer(ABC):
    """A model as it is offered under one of its names."""

    def __init__(self, name: str, served: Served, models: Models) -> None:
        self.name, self.served, self._models = name, served, models

    @property
    @abstractmethod
    def inputs(self) -> list[dict[str, Any]]:
        """As metadata describe them."""

    @property
    @abstractmethod
    def outputs(self) -> list[dict[str, Any]]:
        """As metadata describe them."""

    @abstractmethod
    async def answer(self, request: Request, note: dict[str, Any]) -> list[Tensor]:
        """The outputs that are wanted. Raises Refusal."""

    def metadata(self) -> dict[str, Any]:
        """What the model takes and gives."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": f"hybridvit_{self.served.opened.runtime}",
            "inputs": self.inputs,
            "outputs": self.outputs,
        }

    def check(self, request: Request) -> np.ndarray:
        """The values of the one input. Raises BadRequest for others, and for outputs that there are not."""
        described = self.inputs[0]
        names = [each.name for each in request.inputs]
        if names != [described["name"]]:
            raise BadRequest(
                f"The inputs are {some(names, quoted=True)}, but '{self.name}' takes '{described['name']}'."
            )
        values, datatype = request.inputs[0].values, request.inputs[0].datatype
        shape = described["shape"]
        fits = len(values.shape) == len(shape) and all(
            wanted in (ANY, side) for side, wanted in zip(values.shape[1:], shape[1:], strict=True)
        )
        if datatype != described["datatype"] or not fits:
            raise BadRequest(
                f"Input '{described['name']}' is {datatype} {list(values.shape)}, but '{self.name}' takes "
                f"{described['datatype']} {shape}, where {ANY} is any number."
            )
        if not len(values):
            raise BadRequest(f"Input '{described['name']}' has no images. Send one or more.")
        known = [each["name"] for each in self.outputs]
        for name in request.outputs:
            if name not in known:
                raise BadRequest(f"'{self.name}' has no output '{shown(name)}'. {nearest(shown(name), known)}.")
        return values


class PictureOffer(Offer):
    """Takes whole files and gives what the model says of them: arrays of its results, and their files."""

    @property
    def inputs(self) -> list[dict[str, Any]]:
        return [{"name": IMAGE, "datatype": BYTES, "shape": [ANY], "parameters": {"json": "base64"}}]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        example = self._example
        arrays = {name: Tensor(name=name, values=np.asarray(values)) for name, values in example.arrays().items()}
        described = [
            {"name": name, "datatype": each.datatype, "shape": [ANY] * (1 + each.values.ndim)}
            for name, each in arrays.items()
        ]
        return described + [{"name": name, "datatype": BYTES, "shape": [ANY]} for name in example.files()]

    @property
    def _example(self) -> Result:
        if self.served.example is None:
            raise NoSuchModel(
                f"The file of '{self.name}' gives no answers to pictures. "
                f"Ask '{self.name}{OF_TENSORS}' for its outputs."
            )
        return self.served.example

    async def answer(self, request: Request, note: dict[str, Any]) -> list[Tensor]:
        if request.top is not None and request.top > MOST_ENTRIES:
            raise BadRequest(f"top is {request.top}, but at most {MOST_ENTRIES} entries are given. Ask for fewer.")
        pictures = self.check(request).tolist()
        self.served.check(len(pictures))
        pool = self._models.pool
        prepared = await _all(pool.prepare(picture, self.served.card) for picture in pictures)
        results = await self._results(prepared, request.top, note)
        return await pool.do(partial(_tensors_of, results, list(request.outputs)))

    async def _results(self, prepared: Sequence[Prepared], top: int | None, note: dict[str, Any]) -> list[Result]:
        """In the order of the pictures; those that are prepared to one size wait and are computed together."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, each in enumerate(prepared):
            by_shape.setdefault(each.image.shape, []).append(place)
        answers = await _all(
            self.served.ask(np.stack([prepared[place].image for place in places])) for places in by_shape.values()
        )
        note["ms"] = {
            "decode": max(each.ms for each in prepared),
            "queue": max(each.queue_ms for each in answers),
            "compute": max(each.compute_ms for each in answers),
        }
        results: dict[int, Result] = {}
        for places, answered in zip(by_shape.values(), answers, strict=True):
            note["batch"] = answered.batch
            frames = [prepared[place].frame for place in places]
            found = await self._models.pool.do(partial(self.served.results, answered.outputs, frames, top))
            results |= dict(zip(places, found, strict=True))
        return [results[place] for place in range(len(prepared))]


class TensorOffer(Offer):
    """Takes what the graph takes and gives what it gives."""

    @property
    def inputs(self) -> list[dict[str, Any]]:
        taken = self.served.spec.input
        return [{"name": taken.name, "datatype": taken.datatype, "shape": list(taken.shape)}]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        return [
            {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
            for each in self.served.spec.outputs
        ]

    async def answer(self, request: Request, note: dict[str, Any]) -> list[Tensor]:
        if request.top is not None:
            raise BadRequest(f"top is {request.top}, but '{self.name}' gives its outputs whole. Leave it out.")
        images = self.check(request)
        if images.dtype == np.uint8:
            images = images.transpose(0, 3, 1, 2).astype(np.float32)  # b c h w, as runners of raw pixels take them
        try:
            answered = await self.served.ask(images)
        except NotFinite as error:
            raise BadRequest(f"{error} The input may have values that no picture has.") from error
        note |= {"ms": {"queue": answered.queue_ms, "compute": answered.compute_ms}, "batch": answered.batch}
        wanted = request.outputs or answered.outputs
        return [Tensor(name=name, values=answered.outputs[name]) for name in wanted]


def offer(models: Models, name: str, version: str = VERSION) -> Offer:
    """What is offered under that name. Raises NoSuchModel."""
    if version != VERSION:
        raise NoSuchModel(f"There is no version '{shown(version)}'. Every model has one, {VERSION}.")
    if name in models:
        return PictureOffer(name, models[name], models)
    plain = name.removesuffix(OF_TENSORS)
    if plain != name and plain in models:
        return TensorOffer(name, models[plain], models)
    known = [each for model in models for each in (model, model + OF_TENSORS)]
    raise NoSuchModel(f"There is no model '{shown(name)}'. {nearest(shown(name), known)}.")


def shown(text: str) -> str:
    """What a client sent, fit for a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])


async def _all(works: Iterable[Awaitable[Done]]) -> list[Done]:
    """The results of all; where one fails the others are cancelled, so that nothing of a request is left."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _tensors_of(results: Sequence[Result], wanted: Sequence[str]) -> list[Tensor]:
    """What results say as tensors, their first axis that of the pictures; all, or those that are wanted."""
    arrays = [result.arrays() for result in results]
    files = [result.files() if not wanted or set(wanted) - set(arrays[0]) else {} for result in results]
    return [
        Tensor(name=name, values=np.stack([each[name] for each in arrays]))
        if name in arrays[0]
        else Tensor(name=name, values=bytes_array([each[name] for each in files]))
        for name in wanted or (*arrays[0], *files[0])
    ]
