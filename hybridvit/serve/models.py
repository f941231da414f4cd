"""The models of a service, started and stopped together."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hybridvit.errors import ProcessLost, UsageError, nearest
from hybridvit.serve.limits import Limits
from hybridvit.serve.refusals import BadRequest, NoSuchModel, Stopping
from hybridvit.serve.served import Model, Served
from hybridvit.serve.uploads import DecodePool

STOPPING = "The server is stopping. Ask another one, or this one again when it is back."


def named(words: Sequence[str]) -> dict[str, str]:
    """Paths by name, from words such as model.onnx and cats=model.onnx. Raises UsageError for a name given twice."""
    paths: dict[str, str] = {}
    for word in words:
        name, is_named, path = word.partition("=")
        if not is_named or "/" in name or "\\" in name:
            name, path = Path(word).stem, word
        if not name or not name.isprintable() or "/" in name or len(name) > 100:
            raise UsageError(f"A model cannot be called '{name}'. Give it a name: NAME={path}.")
        if name in paths:
            raise UsageError(
                f"Two models are called '{name}': {paths[name]} and {path}. Give one another name: {name}-2={path}."
            )
        paths[name] = path
    return paths


class Models(Mapping[str, Served]):
    """By name. Raises UsageError for limits that nothing can be served with."""

    def __init__(self, models: Sequence[Model], limits: Limits) -> None:
        limits.check()
        self.limits, self.is_stopping = limits, False
        self.pool = DecodePool(limits)
        self._served = {model.name: Served(model, limits) for model in models}
        self._started = False

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    @property
    def lost(self) -> ProcessLost | None:
        """The first model that is gone for good."""
        return next((each.lost for each in self.values() if each.lost is not None), None)

    def chosen(self, name: str | None) -> Served:
        """The model of that name, or the only one. Raises NoSuchModel, BadRequest."""
        if name is None and len(self) == 1:
            return next(iter(self.values()))
        if name is None:
            raise BadRequest(f"The request names no model, and there are {len(self)}. Add ?model={next(iter(self))}.")
        if name not in self:
            raise NoSuchModel(f"There is no model '{name[:100]}'. {nearest(name[:100], self)}.")
        return self[name]

    def trouble(self) -> dict[str, str]:
        """Why models are not ready, by name."""
        if self.is_stopping:
            return dict.fromkeys(self, "the server is stopping")
        return {name: served.trouble for name, served in self.items() if not served.is_ready}

    async def start(self) -> None:
        """Open all at once, then measure one after the other. Raises as `Served.open`."""
        if self._started:
            return
        self._started = True
        try:
            opened = await asyncio.gather(*(served.open() for served in self.values()), return_exceptions=True)
            for error in opened:
                if error is not None:
                    raise error
            for served in self.values():
                await served.start()
        except BaseException:
            await self.stop()
            raise

    def refuse(self) -> None:
        """Refuse all that still waits, because the server has to end."""
        for served in self.values():
            served.refuse(Stopping(STOPPING))

    async def stop(self) -> None:
        """End all processes."""
        self.is_stopping = True
        await asyncio.gather(*(served.stop() for served in self.values()))
        self.pool.close()
