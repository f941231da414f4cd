"""No request makes a service fail: what its schema allows and forbids, and thousands of damaged requests."""

import asyncio
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from asking import Ask, Caller, at_once, plain, raw, v2_binary, v2_json
from PIL import Image
from serving import Process, picture, serving

from hybridvit.predictor import Predictor

SEED, CONNECTIONS = 11, 32
SILENT_S = 2.0  # a server that says nothing for so long waits for the rest of the request
EXPECTED = {0, 100, 200, 400, 404, 405, 413, 415, 422}  # of damaged requests; 0: no answer, as the rest is waited for
NUM_RIGHT = 100
NUM_EXAMPLES = 15  # of each operation, by day
SCHEMATHESIS_WITHIN_S = 550
PROGRAM = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
CONFIG = """
[parameters]
"path.name" = "m"
"path.version" = "1"

[checks]
positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 413, 415, 422]  # a schema cannot say what a picture is
"""


@pytest.fixture(scope="module")
def service(onnx_file: Path):
    """A process of its own: what it has logged is counted."""
    with serving(onnx_file, "--max_batch", 8, "--queue", 256) as process:
        yield process


def statuses(process: Process) -> list[int]:
    """Of all requests so far."""
    return [int(status) for status in re.findall(r'"status": (\d+)', process.log.getvalue())]


def check_well(process: Process, predictor: Predictor) -> None:
    """Raise AssertionError where the service has failed, or does not answer as before."""
    log = process.log.getvalue()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert not [status for status in statuses(process) if status >= 500]
    caller = Caller(process.port)
    pictures = [picture(seed) for seed in range(10)]
    wanted = [result.to_dict()["predictions"] for result in predictor(pictures)]

    def work(number: int) -> None:
        said = caller(plain(pictures[number % 10], "m"))
        assert said.status == 200
        for given, each in zip(said.json["predictions"], wanted[number % 10], strict=True):
            assert given["index"] == each["index"]
            assert given["probability"] == pytest.approx(each["probability"], rel=1e-5, abs=1e-6)

    at_once(work, NUM_RIGHT, 8)
    assert caller.number("hybridvit_queue_length") == 0


@pytest.fixture(scope="module")
def predictor(onnx_file: Path) -> Predictor:
    return Predictor(onnx_file)


def asked_by_schemathesis(process: Process, folder: Path, num_examples: int) -> None:
    (folder / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    words = [
        "--config-file", folder / "schemathesis.toml", "run", f"{process.url}/openapi.json", "--checks", "all",
        "--seed", SEED, "--max-examples", num_examples, "--phases", "examples,coverage,fuzzing", "--workers", 1,
        "--no-color", "--warnings", "off", "--continue-on-failure", "--request-timeout", 60,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        timeout=SCHEMATHESIS_WITHIN_S,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print(re.findall(r"\d+ generated, \d+ passed", done.stdout))


def test_what_the_schema_allows_and_forbids_is_answered_as_it_says(service, predictor, tmp_path):
    asked_by_schemathesis(service, tmp_path, NUM_EXAMPLES)
    check_well(service, predictor)


@pytest.mark.nightly
def test_much_more_of_what_the_schema_allows_and_forbids_is_answered_as_it_says(service, predictor, tmp_path):
    asked_by_schemathesis(service, tmp_path, 5 * NUM_EXAMPLES)
    check_well(service, predictor)


@pytest.mark.parametrize("count", [1_000, pytest.param(5_000, marks=pytest.mark.nightly)])
def test_damaged_requests_are_refused_and_nothing_fails(service, predictor, count):
    generator = random.Random(count)
    requests = [damaged(generator) for _ in range(count)]
    before = len(statuses(service))
    answers = asyncio.run(send_all(service.port, requests))
    assert len(answers) == count
    strange = [(code, request[:300]) for request, code in zip(requests, answers, strict=True) if code not in EXPECTED]
    assert not strange, strange[:3]
    check_well(service, predictor)
    codes = {code: answers.count(code) for code in sorted(set(answers))}
    print(f"\n{count} damaged requests: {codes} (0: no answer); {len(statuses(service)) - before} in the log")
    assert codes.keys() >= {200, 400, 404, 415, 422}, "a part of the service was not reached"


async def send_all(port: int, requests: list[bytes]) -> list[int]:
    """The status of the answer to each, or 0 where there is none."""
    gate = asyncio.Semaphore(CONNECTIONS)

    async def one(request: bytes) -> int:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                line = await asyncio.wait_for(reader.readline(), SILENT_S)
            except (TimeoutError, ConnectionError):
                return 0
            finally:
                writer.close()
            found = re.match(rb"HTTP/1\.1 (\d{3}) ", line)
            assert found or not line, line
            return int(found[1]) if found else 0

    return await asyncio.gather(*map(one, requests))


SMALL = [picture(seed, width=20, height=16) for seed in range(4)]
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**64,
    1e308,
    0.5,
    "",
    "x",
    "1",
    "\ud800",
    "\0",
    [],
    [[]],
    {},
    {"a": 1},
    "é" * 90,
)
HEADERS = (
    "Content-Length: 0", "Content-Length: -1", "Content-Length: 99999999999", "Content-Length: x", "Content-Length: 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Encoding: gzip", "Content-Type: application/json",
    "Content-Type: multipart/form-data; boundary=x", "Expect: 100-continue", "Connection: close", "Connection: upgrade",
    "Upgrade: websocket", "Upgrade: h2c", "Inference-Header-Content-Length: 5", "Inference-Header-Content-Length: -5",
    "Inference-Header-Content-Length: 1e9", "Inference-Header-Content-Length: \xb2", "X-Request-Id: \x01", "Host: ",
    "Range: bytes=0-5", "If-None-Match: *", "X: " + "y" * 70_000, ": x", "no colon", " folded", "Cookie: a=b; =;;",
)  # fmt: skip
LINES = (
    b"GET / HTTP/1.1", b"GET /v2/models/m HTTP/1.0", b"POST /predict?top=0 HTTP/1.1", b"POST /predict?top=x HTTP/1.1",
    b"POST /predict?model=x HTTP/1.1", b"PUT /predict HTTP/1.1", b"TRACE / HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"GET /assets/../../etc/passwd HTTP/1.1", b"GET /assets/%2e%2e%2fx HTTP/1.1", b"GET /%00 HTTP/1.1",
    b"GET /\xff\xfe HTTP/1.1", b"GET http://x/healthz HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"GET /v2//models HTTP/1.1",
    b"POST /v2/models/m/versions/2/infer HTTP/1.1", b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"GET / HTTP/9.9",
    b"", b"\x16\x03\x01",
    b"POST /v2/models/m.tensor/infer HTTP/1.1", b"GET /models?x=%ff HTTP/1.1", b"HEAD / HTTP/1.1",
    b"GET /v2/models/%F0 HTTP/1.1",
)  # fmt: skip


def whole(generator: random.Random) -> Ask:
    """A request that is in order."""
    pictures = generator.sample(SMALL, generator.randint(1, 3))
    return generator.choice(
        (
            lambda: plain(pictures[0], "m"),
            lambda: plain(in_another_format(generator), "m"),
            lambda: v2_json(pictures, "m", id="x", outputs=[{"name": "labels"}, {"name": "indices"}]),
            lambda: v2_binary(pictures, "m", id="x", parameters={"top": 2, "binary_data_output": True}),
        )
    )()


def in_another_format(generator: random.Random) -> bytes:
    """A picture as another kind of file."""
    file = BytesIO()
    kind = generator.choice(("JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF"))
    pixels = np.random.default_rng(generator.randrange(5)).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def damaged(generator: random.Random) -> bytes:
    """A request with a fault of one of many kinds, sent as bytes."""
    return generator.choice(WAYS)(generator)


def with_another_body(generator: random.Random) -> bytes:
    """Bytes of the body changed, taken away or added; its length is right."""
    ask = whole(generator)
    return raw(Ask(path=ask.path, body=changed(generator, ask.body), headers=ask.headers))


def with_another_value(generator: random.Random) -> bytes:
    """The request's JSON with one value exchanged."""
    ask = v2_json(generator.sample(SMALL, 2), "m", id="x", parameters={"top": 2}, outputs=[{"name": "labels"}])
    tree = json.loads(ask.body)
    places: list[tuple[dict | list, object]] = []
    level: list[object] = [tree]
    while level:
        node = level.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        level += [node[key] for key in keys]
    node, key = generator.choice(places)
    if generator.random() < 0.2 and isinstance(node, dict):
        node[generator.choice(("", "x", "data", "name", "\ud800"))] = generator.choice(VALUES)
    else:
        node[key] = generator.choice(VALUES)
    return raw(Ask(path=ask.path, body=json.dumps(tree).encode(), headers=ask.headers))


def with_another_length(generator: random.Random) -> bytes:
    """A binary request whose lengths are wrong."""
    ask = v2_binary(generator.sample(SMALL, 2), "m")
    name = next(each for each in ask.headers if each.startswith("Inference"))
    size = int(ask.headers[name])
    ask.headers[name] = str(generator.choice((0, 1, size - 1, size + 1, size + 4, len(ask.body), len(ask.body) + 1)))
    body = bytearray(ask.body)
    if generator.random() < 0.5:
        ask.headers[name] = str(size)
        body[size : size + 4] = generator.randbytes(4)
    return raw(Ask(path=ask.path, body=bytes(body), headers=ask.headers))


def with_another_header(generator: random.Random) -> bytes:
    """A header added, or exchanged."""
    head, body = raw(whole(generator)).split(b"\r\n\r\n", 1)
    lines = head.split(b"\r\n")
    place = generator.randrange(1, len(lines) + 1)
    lines[place : place + generator.randint(0, 1)] = [generator.choice(HEADERS).encode("latin-1")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def with_another_line(generator: random.Random) -> bytes:
    """Another first line."""
    return generator.choice(LINES) + b"\r\n" + raw(whole(generator)).split(b"\r\n", 1)[1]


def with_other_bytes(generator: random.Random) -> bytes:
    """Bytes of the whole changed."""
    return changed(generator, raw(whole(generator)))


def in_chunks(generator: random.Random) -> bytes:
    """A body in chunks, one of which may be wrong."""
    ask = whole(generator)
    size = generator.choice((b"5", b"FFFFFFFF", b"-1", b"x", b"", b"0", b"5;a=b"))
    chunks = b"%x\r\n%s\r\n" % (len(ask.body), ask.body) + size + b"\r\n" + b"hello\r\n" + b"0\r\n\r\n"
    head = raw(ask).split(b"\r\n\r\n", 1)[0].replace(b"Content-Length", b"X-Length")
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks


def changed(generator: random.Random, content: bytes) -> bytes:
    """With up to eight faults."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        place = generator.randrange(len(data) + 1)
        what = generator.randrange(4)
        if what == 0:
            del data[place : place + generator.randint(1, 40)]
        elif what == 1:
            data[place:place] = generator.randbytes(generator.randint(1, 40))
        elif what == 2:
            data[place : place + 1] = generator.randbytes(1)
        else:
            data[place : place + 4] = generator.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b'"}]['))
    return bytes(data)


WAYS: tuple[Callable[[random.Random], bytes], ...] = (
    *(with_another_body,) * 3, *(with_another_value,) * 2, with_another_length, with_another_header, with_another_line,
    with_other_bytes, in_chunks,
)  # fmt: skip
