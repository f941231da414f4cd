"""Services for tests: an application asked in this process, and `hybridvit serve` as a process."""

import asyncio
import dataclasses
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from trained_like import trained_like

import hybridvit
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.serve.app import create_app
from hybridvit.serve.limits import Limits
from hybridvit.serve.models import Models
from hybridvit.serve.served import Model

NAMES = ("ant", "bee", "cat", "dog", "emu", "fox")
WITHIN_S = 60.0
OPENED_WITHIN_S = 300.0  # models, on a machine that does other things too
PROGRAMS = Path(__file__).parent / "programs"


def picture(seed: int = 0, *, width: int = 50, height: int = 40, kind: str = "PNG") -> bytes:
    """The file of a picture of noise."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def classifier(path: Path, **options: Any) -> Path:
    """A small classifier, at `path`: a checkpoint, or by its suffix an exported file."""
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=len(NAMES)))
    model.card = dataclasses.replace(model.card, class_names=NAMES)
    if path.suffix == ".safetensors":
        hybridvit.save_checkpoint(model, path)
    else:
        export(model, path, options=ExportOptions(**options))
    return path


class Service:
    """An application and its models, asked without a network: its loop runs in a thread."""

    def __init__(self, paths: dict[str, Path], limits: Limits) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.models = Models([Model(name=name, path=str(path)) for name, path in paths.items()], limits)
        self.do(self.models.start(), OPENED_WITHIN_S)
        self.app = create_app(self.models)

    def do(self, work: Coroutine[Any, Any, Any], within_s: float = WITHIN_S) -> Any:
        """The result of `work` in the loop of the service."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    def ask(self, method: str, address: str, **options: Any) -> httpx.Response:
        """The response to one request."""
        return self.do(self._ask(method, address, options))

    def post(self, address: str, content: bytes, **headers: str) -> httpx.Response:
        """The response to a body."""
        return self.ask("POST", address, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def get(self, address: str) -> httpx.Response:
        """The response to a question."""
        return self.ask("GET", address)

    async def _ask(self, method: str, address: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, address, **options)

    def close(self) -> None:
        """End the models and the loop."""
        self.do(self.models.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WITHIN_S)
        self._loop.close()


class Process:
    """`hybridvit serve WORDS`, or a program that does the same, once it serves."""

    def __init__(self, *words: object, program: tuple[object, ...] = ("-m", "hybridvit", "serve")) -> None:
        command = [sys.executable, *map(str, program), *map(str, words), "--port", "0"]
        self.log = io.StringIO()
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=dict(os.environ)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.fullmatch(r"Serving on (https?)://127\.0\.0\.1:(\d+)\n", line)
        if found is None:
            self._process.kill()
            self._reader.join(WITHIN_S)
            raise AssertionError(f"{line!r} {self.log.getvalue()}")
        self.pid, self.port = self._process.pid, int(found[2])
        self.url = f"{found[1]}://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.write(line)

    def pid_of(self, name: str) -> int:
        """The process that computes a model, the last that the log tells of."""
        until = time.monotonic() + WITHIN_S
        told: list[tuple[str, str]] = []
        while not told and time.monotonic() < until:  # what is printed may be read a little later
            time.sleep(0.01)
            told = re.findall(
                rf"^{name}: process (\d+)|^the model '{name}' is ready again, in process (\d+)",
                self.log.getvalue(),
                re.M,
            )
        return int(max(told[-1]))

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = WITHIN_S) -> int:
        """The exit code."""
        code = self._process.wait(timeout_s)
        self._reader.join(WITHIN_S)
        return code

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def serving(*words: object, **options: Any) -> Iterator[Process]:
    """A `Process` for the time of a block."""
    process = Process(*words, **options)
    try:
        yield process
    finally:
        process.end()


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number that is not merely waiting to be forgotten."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
