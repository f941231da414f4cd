"""How fast is a service: against LitServe with its batching, against itself without, and against `predict` alone.

    python -m venv OTHER && OTHER/bin/pip install litserve==0.2.19 onnxruntime pillow numpy
    python benchmarks/serve.py --digits runs/demo/model.onnx --litserve_python OTHER/bin/python
    python benchmarks/serve.py --digits runs/demo/model.onnx --files t8.onnx sa12.onnx     # without LitServe

All servers run at once, and are asked in turn, every other round backwards. Those that are not asked are stopped:
LitServe's wait for requests by asking again and again, which takes up to a whole processor. A ratio is the median of
those of the rounds. Requests come from this process over connections that stay open, which takes a tenth of the time
that the servers take for them; the next one is sent when the answer is there. The overhead is the time of a request on
one connection less that of `Predictor` in this process for the same bytes.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from comparison import report
from PIL import Image

from hybridvit.predictor import Predictor

CONNECTIONS = 32
TURN_S = 3.0
STARTED_WITHIN_S = 120.0
ENDED_WITHIN_S = 15.0
ONE_BY_ONE = 30  # requests of a turn on one connection
PARTS = ("litserve", "batching", "overhead")
PHOTO = (500, 375)  # width and height, as in ImageNet


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that runs, and the request that it is asked."""

    port: int
    session: int  # of its processes
    request: bytes

    @property
    def cpu_s(self) -> float:
        """Seconds of processors that all its processes have taken so far; 0 where there is no /proc."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                values = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(values[3]) == self.session:
                    total += int(values[11]) + int(values[12])
        return total / os.sysconf("SC_CLK_TCK")


class Client(asyncio.Protocol):
    """One connection: asks again as soon as the answer is there."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request, self._until, self._buffer = request, until, b""
        self.count = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read a part of an answer."""
        self._buffer += data
        head, is_whole, body = self._buffer.partition(b"\r\n\r\n")
        if not is_whole:
            return
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None, head
        if len(body) < int(length[1]):
            return
        assert head.startswith(b"HTTP/1.1 200"), self._buffer
        self.count, self._buffer = self.count + 1, b""
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        elif not self.ended.done():
            self._transport.close()
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """A server that closes gives no throughput."""
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"the server closed a connection: {error}"))


@contextmanager
def awake(served: Served) -> Iterator[None]:
    """The processes of a server, which are stopped before and after, run for the time of a block."""
    os.killpg(served.session, signal.SIGCONT)
    try:
        yield
    finally:
        os.killpg(served.session, signal.SIGSTOP)


async def throughput(served: Served, seconds: float) -> float:
    """Answers per second on CONNECTIONS connections."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: Client(served.request, began + seconds), "127.0.0.1", served.port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(client.ended for client in clients))
    return sum(client.count for client in clients) / (time.perf_counter() - began)


def request_of(body: bytes, kind: str) -> bytes:
    """A whole request."""
    head = f"POST /predict HTTP/1.1\r\nHost: s\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def started(command: Sequence[str], port: int) -> Iterator[int]:
    """A server for the time of a block; gives the session of its processes."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ)
    )
    try:
        until = time.monotonic() + STARTED_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command)} does not serve.") from None
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)  # one that is stopped ends only when it goes on
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDED_WITHIN_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # LitServe leaves processes behind
        process.wait()


def ours(file: Path, picture: bytes, *words: str) -> Iterator[Served]:
    """Our server of one file."""
    port = free_port()
    command = [sys.executable, "-m", "hybridvit", "serve", str(file), "--port", str(port), *words]
    with started(command, port) as session:
        yield Served(port=port, session=session, request=request_of(picture, "application/octet-stream"))


def litserve(python: Path, file: Path, picture: bytes, batch: int, timeout_s: float) -> Iterator[Served]:
    """LitServe's of the same file."""
    port = free_port()
    program = Path(__file__).parent / "programs" / "litserve_server.py"
    body = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    with started([str(python), str(program), str(file), str(port), str(batch), str(timeout_s)], port) as session:
        yield Served(port=port, session=session, request=request_of(body, "application/json"))


def compared(title: str, servers: Mapping[str, Callable[[], Iterator[Served]]], *, rounds: int) -> dict[str, object]:
    """Answers per second of servers that are asked in turn, and how many times as many the first has."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(contextmanager(start)()) for name, start in servers.items()}
        for served in running.values():
            asyncio.run(throughput(served, 1.0))  # what the first requests set up
            os.killpg(served.session, signal.SIGSTOP)
        counts: dict[str, list[float]] = {name: [] for name in running}
        before = {name: served.cpu_s for name, served in running.items()}
        for index in range(rounds):
            for name in list(running) if index % 2 == 0 else list(running)[::-1]:
                with awake(running[name]):
                    counts[name].append(asyncio.run(throughput(running[name], TURN_S)))
        spent = {name: served.cpu_s - before[name] for name, served in running.items()}
    first = next(iter(counts.values()))
    rows: dict[str, dict[str, float]] = {
        name: {
            "per_second": round(statistics.median(each), 1),
            "first_is_times_as_fast": round(statistics.median(a / b for a, b in zip(first, each, strict=True)), 3),
            "cpu_ms": round(1e3 * spent[name] / (sum(each) * TURN_S), 3),  # of all processes, for an answer
        }
        for name, each in counts.items()
    }
    print(f"\n{title}: answers per second at {CONNECTIONS} connections, median of {rounds} interleaved rounds")
    for name, row in rows.items():
        print(
            f"  {name:<32} {row['per_second']:8.1f}   the first is x{row['first_is_times_as_fast']:.2f}"
            f"   {row['cpu_ms']:.2f} ms of processors an answer"
        )
    return {"title": title, "rows": rows}


def overhead(file: Path, picture: bytes, *, rounds: int) -> dict[str, object]:
    """Milliseconds of a request on one connection, and of `Predictor` alone, for the same bytes."""
    predictor = Predictor(file)

    def alone() -> float:
        began = time.perf_counter()
        predictor([picture])
        return (time.perf_counter() - began) * 1e3

    with contextmanager(ours)(file, picture) as served, socket.create_connection(("127.0.0.1", served.port)) as each:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def asked() -> float:
            began = time.perf_counter()
            each.sendall(served.request)
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                answer += each.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            return (time.perf_counter() - began) * 1e3

        times: dict[str, list[float]] = {"service": [], "predict": []}
        for _ in range(rounds):
            for name, ask in (("service", asked), ("predict", alone)):
                ask()
                times[name].append(statistics.median(ask() for _ in range(ONE_BY_ONE)))
    medians = {name: round(statistics.median(each), 3) for name, each in times.items()}
    more = round(statistics.median(a - b for a, b in zip(*times.values(), strict=True)), 3)
    print(f"\n{file.name}: {medians['service']} ms a request, {medians['predict']} ms by predict alone: {more} ms more")
    return {"file": file.name, "ms": medians, "more_ms": more}


def photo() -> bytes:
    """A JPEG of an ordinary size, smooth as photos are."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(PHOTO, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    """Run the comparisons that the command line names files for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True, help="the digits model as .onnx")
    parser.add_argument("--picture", type=Path, help="for it; by default a made-up photo")
    parser.add_argument("--litserve_python", type=Path, help="of an environment that has litserve")
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="more .onnx files, on photos of 500x375")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="all by default")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    picture = options.picture.read_bytes() if options.picture else photo()
    load = os.getloadavg()[0]
    print(f"load before: {load:.1f} on {os.cpu_count()} cores")
    results: list[dict[str, object]] = [{"load_before": load}]
    digits = {"ours": partial(ours, options.digits, picture)}
    if "litserve" in options.parts and options.litserve_python is not None:
        others = {f"LitServe 32 within {wait_s * 1e3:g} ms": wait_s for wait_s in (0.0, 0.01)}
        servers = digits | {
            name: partial(litserve, options.litserve_python, options.digits, picture, 32, wait_s)
            for name, wait_s in others.items()
        }
        results.append(compared("digits", servers, rounds=options.rounds))
    for file, body in [(options.digits, picture), *((each, photo()) for each in options.files)]:
        servers = {
            "ours": partial(ours, file, body),
            "ours, one at a time": partial(ours, file, body, "--max_batch", "1"),
        }
        if "batching" in options.parts:
            results.append(compared(file.stem, servers, rounds=options.rounds))
        if "overhead" in options.parts:
            results.append(overhead(file, body, rounds=options.rounds))
    report("serve", results, output=options.output)


if __name__ == "__main__":
    main()
