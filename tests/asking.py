"""Clients of a service for tests: requests of every kind, many at once, and clients that do not wait."""

import base64
import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

ASK_WITHIN_S = 150.0
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request."""

    path: str
    body: bytes = b""
    headers: dict[str, str]
    method: str = "POST"


@dataclass(frozen=True, kw_only=True)
class Said:
    """The response to it."""

    status: int
    body: bytes
    header_bytes: int | None = None  # of JSON, where bytes follow

    @property
    def json(self) -> Any:
        """The body, or what of it is JSON."""
        return json.loads(self.body[: self.header_bytes])


def plain(picture: bytes, model: str) -> Ask:
    """A picture to /predict."""
    return Ask(path=f"/predict?model={model}", body=picture, headers={"Content-Type": "application/octet-stream"})


def v2_json(pictures: Sequence[bytes], model: str, **more: Any) -> Ask:
    """Pictures to the protocol v2, as base64."""
    data = [base64.b64encode(picture).decode() for picture in pictures]
    entry = {"name": "image", "shape": [len(pictures)], "datatype": "BYTES", "data": data}
    return Ask(
        path=f"/v2/models/{model}/infer",
        body=json.dumps({"inputs": [entry], **more}).encode(),
        headers={"Content-Type": "application/json"},
    )


def v2_binary(pictures: Sequence[bytes], model: str, **more: Any) -> Ask:
    """Pictures to the protocol v2 as bytes, with answers as bytes."""
    tail = b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)
    entry = {
        "name": "image",
        "shape": [len(pictures)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(tail)},
    }
    header = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}, **more}).encode()
    return Ask(
        path=f"/v2/models/{model}/infer",
        body=header + tail,
        headers={"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))},
    )


class Caller:
    """Asks one service: each time on a connection of its own, or on one that each thread keeps until `close`."""

    def __init__(self, port: int, *, keep: bool = False) -> None:
        self.port = port
        self._kept: dict[int, http.client.HTTPConnection] | None = {} if keep else None  # by thread

    def __call__(self, ask: Ask) -> Said:
        """The response."""
        if self._kept is None:
            with closing(self._connected()) as connection:
                return _said(connection, ask)
        return _said(self._kept.setdefault(threading.get_ident(), self._connected()), ask)

    def close(self) -> None:
        """End what is kept."""
        for connection in (self._kept or {}).values():
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=ASK_WITHIN_S)

    def get(self, path: str) -> Said:
        """The response to a question."""
        return self(Ask(path=path, headers={}, method="GET"))

    def leave(self, ask: Ask) -> None:
        """Send a request and be gone, as clients are whose user closes the page."""
        with socket.create_connection(("127.0.0.1", self.port), ASK_WITHIN_S) as connection:
            connection.sendall(raw(ask))

    def number(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def _said(connection: http.client.HTTPConnection, ask: Ask) -> Said:
    connection.request(ask.method, ask.path, ask.body, ask.headers)
    response = connection.getresponse()
    length = response.headers.get(HEADER_LENGTH)
    header_bytes = None if length is None else int(length)
    return Said(status=response.status, body=response.read(), header_bytes=header_bytes)


def raw(ask: Ask) -> bytes:
    """A request as it is sent."""
    headers = {"Host": "127.0.0.1", "Content-Length": str(len(ask.body)), **ask.headers}
    lines = [f"{ask.method} {ask.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + ask.body


def at_once(work: Callable[[int], Any], count: int, connections: int) -> list[Any]:
    """`work` of each number below `count`, by so many threads."""
    with ThreadPoolExecutor(connections) as pool:
        return list(pool.map(work, range(count)))


def array_of(said: Said, name: str) -> np.ndarray:
    """An output of FP32 or INT64 in an answer of the protocol v2, in whichever form."""
    place = said.header_bytes or 0
    for entry in said.json["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size", 0)
        dtype = {"FP32": "<f4", "INT64": "<i8"}.get(entry["datatype"])
        if entry["name"] == name:
            values = entry["data"] if "data" in entry else np.frombuffer(said.body[place : place + size], dtype)
            return np.array(values, dtype).reshape(entry["shape"])
        place += size
    raise AssertionError(f"no output {name}")
