"""Uvicorn with what it does not do itself: headers have to come in time, and a signal to stop ends with exit code 0."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hybridvit.errors import UsageError
from hybridvit.serve.app import create_app
from hybridvit.serve.limits import DRAIN_S, HEADER_S
from hybridvit.serve.models import Models
from hybridvit.serve.served import Served

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOST_PORT = 65_535


class TimedProtocol(H11Protocol):
    """A connection that is closed when a request's header does not come in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a header."""
        super().connection_made(transport)
        self._wait_for_header()

    def on_response_complete(self) -> None:
        """Begin to wait for the next header."""
        self._wait_for_header()
        super().on_response_complete()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop to wait."""
        self._stop_waiting()
        super().connection_lost(error)

    def _wait_for_header(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEADER_S, self._is_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Server(uvicorn.Server):
    """Ends by itself, with exit code 0, when it is told to stop and has answered what was asked; at once if told twice.

    It ends too when a model is lost for good.
    """

    def __init__(self, config: uvicorn.Config, models: Models) -> None:
        super().__init__(config)
        self._models = models
        for served in models.values():
            served.on_lost = lambda error: self.stop()

    def stop(self) -> None:
        """Take no new connections, answer what is asked within DRAIN_S, refuse the rest, and end."""
        self._models.is_stopping = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and end."""
        timer = asyncio.get_running_loop().call_later(DRAIN_S, self._models.refuse)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs; uvicorn itself would raise them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once if that was said before."""
        if self.should_exit:
            for served in self._models.values():
                served.kill()
            os._exit(128 + sig)
        self.stop()


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address, which does not listen yet. Raises UsageError for one that cannot be had."""
    if not 0 <= port <= MOST_PORT:
        raise UsageError(f"--port is {port}, but ports are numbers from 0, for any that is free, to {MOST_PORT}.")
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two servers have one address
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UsageError(
            f"The address {host}:{port} cannot be served at: {error.strerror or error}. Use another --host or --port."
        ) from error
    return listening


def at_once(served: Served) -> str:
    """Where a model computes, how many pictures at once, and what was measured for that, as a line."""
    times = ", ".join(f"{size}: {1e3 * size / ms:.0f}" for size, ms in served.batch_times.items())
    measured = f" (measured, pictures per second by batch: {times})" if times else ""
    return f"process {served.pid}, up to {served.max_batch} at once{measured}"


async def run(
    models: Models, listening: socket.socket, *, host: str, certfile: Path | None = None, keyfile: Path | None = None
) -> None:
    """Start the models, print where they are served, and serve until told to stop.

    Raises as `Models.start`; ProcessLost where a model is lost for good.
    """
    config = uvicorn.Config(
        create_app(models),
        http=TimedProtocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=round(DRAIN_S) + 1,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    try:
        await models.start()
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        server = Server(config, models)
        for served in models.values():
            print(f"{served.name}: {at_once(served)}", file=sys.stderr)
        listening.listen(config.backlog)  # who reads the next line can connect
        print(f"Serving on {'https' if certfile else 'http'}://{shown}:{port}", flush=True)
        await server.serve(sockets=[listening])
    finally:
        await models.stop()
    if models.lost is not None:
        raise models.lost
