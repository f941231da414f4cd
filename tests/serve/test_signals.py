"""A service that is told to stop, whose model's process dies, or that dies itself."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import PROGRAMS, Process, classifier, is_alive, picture, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

SLOW_S = 2
SOON_S = 10.0
PATIENCE_S = 30.0  # of a client


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("signals") / "m.onnx")


@pytest.fixture
def slow(model: Path) -> Iterator[Process]:
    """A service whose model takes two seconds for a batch."""
    with serving(model, "--max_batch", 1, program=(PROGRAMS / "serving_slowly.py", SLOW_S)) as process:
        yield process


@pytest.fixture
def quick(model: Path) -> Iterator[Process]:
    with serving(model, "--max_batch", 4) as process:
        yield process


def predict(process: Process) -> httpx.Response:
    return httpx.post(f"{process.url}/predict", content=picture(), timeout=PATIENCE_S)


def asked(process: Process, count: int) -> list["Future[httpx.Response]"]:
    """So many requests at once, given time to arrive."""
    pool = ThreadPoolExecutor(count)
    futures = [pool.submit(predict, process) for _ in range(count)]
    pool.shutdown(wait=False)
    time.sleep(SLOW_S / 2)
    return futures


def wait_until(what: Callable[[], bool], within_s: float = SOON_S) -> None:
    """Wait until `what()` is true."""
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def check_gone(process: Process, child: int) -> None:
    """Nothing of the service is left."""
    assert not is_alive(child)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", process.port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_that_is_told_to_stop_ends_at_once_with_code_0(quick: Process, number: int) -> None:
    assert predict(quick).status_code == 200
    child, began = quick.pid_of("m"), time.monotonic()
    quick.signal(number)
    assert quick.wait() == 0
    assert time.monotonic() - began < SOON_S
    check_gone(quick, child)
    assert "Traceback" not in quick.log.getvalue()


def test_what_is_asked_when_a_service_is_told_to_stop_is_still_answered(slow: Process) -> None:
    futures, child = asked(slow, 2), slow.pid_of("m")
    slow.signal(signal.SIGTERM)
    with pytest.raises(httpx.TransportError):
        wait_until(lambda: httpx.get(f"{slow.url}/healthz", timeout=PATIENCE_S).status_code != 200)
    assert [future.result(PATIENCE_S).status_code for future in futures] == [200, 200]
    assert slow.wait() == 0
    check_gone(slow, child)


def test_a_full_queue_is_answered_as_far_as_there_is_time_and_the_rest_refused(slow: Process) -> None:
    futures, child = asked(slow, 16), slow.pid_of("m")
    began = time.monotonic()
    slow.signal(signal.SIGTERM)
    answers = [future.result(PATIENCE_S) for future in futures]
    assert slow.wait() == 0
    assert time.monotonic() - began < SOON_S
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 503}
    assert 1 <= codes.count(200) <= 6
    assert {answer.json()["error"] for answer in answers if answer.status_code == 503} == {"stopping"}
    check_gone(slow, child)


def test_a_second_signal_ends_a_service_at_once(slow: Process) -> None:
    asked(slow, 4)
    child, began = slow.pid_of("m"), time.monotonic()
    slow.signal(signal.SIGTERM)
    time.sleep(0.3)
    slow.signal(signal.SIGTERM)
    assert slow.wait() == 143
    assert time.monotonic() - began < SLOW_S
    check_gone(slow, child)


def test_a_service_goes_on_when_a_models_process_dies_and_gives_up_the_third_time(quick: Process) -> None:
    for _ in range(2):
        child = quick.pid_of("m")
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: httpx.get(f"{quick.url}/readyz").status_code == 503)
        assert "was ended by signal SIGKILL" in httpx.get(f"{quick.url}/readyz").json()["not_ready"]["m"]
        wait_until(lambda: httpx.get(f"{quick.url}/readyz").status_code == 200, PATIENCE_S)
        assert predict(quick).status_code == 200
        assert quick.pid_of("m") != child
    assert "hybridvit_worker_restarts_total 2.0" in httpx.get(f"{quick.url}/metrics").text
    os.kill(quick.pid_of("m"), signal.SIGKILL)
    assert quick.wait() == 8
    assert "was lost 3 times within 10 minutes" in quick.log.getvalue()


def test_what_a_dying_process_held_is_refused_and_what_waits_is_answered_by_the_next(slow: Process) -> None:
    futures = asked(slow, 3)
    os.kill(slow.pid_of("m"), signal.SIGKILL)
    answers = [future.result(PATIENCE_S) for future in futures]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
    (lost,) = [answer for answer in answers if answer.status_code == 503]
    assert lost.json()["error"] == "worker_lost"
    assert "was ended by signal SIGKILL" in lost.json()["message"]
    assert lost.headers["retry-after"] == "1"


def test_a_models_process_ends_with_a_service_that_is_killed(slow: Process) -> None:
    asked(slow, 1)
    child = slow.pid_of("m")
    slow.signal(signal.SIGKILL)
    slow.wait()
    wait_until(lambda: not is_alive(child), within_s=2.0)


def test_a_client_that_leaves_makes_room_at_once(slow: Process) -> None:
    asked(slow, 1)  # is computed
    sockets = [socket.create_connection(("127.0.0.1", slow.port)) for _ in range(20)]
    body = picture()
    for each in sockets:
        each.sendall(b"POST /predict HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    queue = 'hybridvit_queue_length{model="m"}'
    wait_until(lambda: f"{queue} 20.0" in httpx.get(f"{slow.url}/metrics").text)
    for each in sockets:
        each.close()
    wait_until(lambda: f"{queue} 0.0" in httpx.get(f"{slow.url}/metrics").text)
    assert "hybridvit_cancelled_total 20.0" in httpx.get(f"{slow.url}/metrics").text


def test_clients_that_send_slowly_keep_nobody_from_being_answered(quick: Process) -> None:
    opened: list[socket.socket] = []

    def connect(start: bytes) -> None:
        opened.append(socket.create_connection(("127.0.0.1", quick.port)))
        opened[-1].sendall(start)

    for _ in range(200):
        connect(b"GET /healthz HTTP/1.1\r\nHost: s\r\nX-Half")
    for _ in range(50):
        connect(b"POST /predict HTTP/1.1\r\nHost: s\r\nContent-Length: 5000\r\n\r\n\x89PNG")
    began = time.monotonic()
    with httpx.Client(timeout=PATIENCE_S) as client:
        codes = [client.post(f"{quick.url}/predict", content=picture()).status_code for _ in range(100)]
    assert codes == [200] * 100
    answers: list[bytes] = []

    def rest(each: socket.socket) -> None:
        each.settimeout(PATIENCE_S)
        answers.append(b"".join(iter(lambda: each.recv(65536), b"")))

    threads = [threading.Thread(target=rest, args=(each,)) for each in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert time.monotonic() - began < PATIENCE_S
    assert answers.count(b"") == 200  # closed without a word
    late = [answer for answer in answers if answer]
    assert len(late) == 50
    assert all(answer.startswith(b"HTTP/1.1 408 ") and b'"error": "too_slow"' in answer for answer in late)
    for each in opened:
        each.close()
    assert predict(quick).status_code == 200
