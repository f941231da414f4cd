"""A service that is asked without end keeps its memory."""

import os
import sys
import time
from itertools import count

import pytest
from asking import Caller, at_once, plain, v2_binary, v2_json
from serving import Process, picture, serving

CONNECTIONS, SETTLED_AFTER_S = 8, 10.0
MOST_GROWTH_BYTES = 30 << 20
WIDTH, HEIGHT = 300, 200
PICTURES = [
    picture(seed, width=WIDTH, height=HEIGHT, kind=kind) for seed in range(3) for kind in ("JPEG", "PNG", "WEBP")
]
LEAST_MEASURED = 2 * MOST_GROWTH_BYTES // (3 * WIDTH * HEIGHT)  # requests: one picture kept of each is twice the bound


def resident_bytes(process: Process) -> int:
    """The memory of the server and of its model's process."""
    pages = 0
    for pid in (process.pid, process.pid_of("m")):
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def ask_for(caller: Caller, seconds: float, numbers: count, least: int = 0) -> int:
    """Ask in every way for so long, and until `least` requests are made; return how many were."""
    until, last = time.monotonic() + seconds, next(numbers) + least

    def work(_: int) -> int:
        number = made = 0
        while time.monotonic() < until or number < last:
            number, made = next(numbers), made + 1
            content = PICTURES[number % len(PICTURES)]
            way = number % 5
            if way == 0:
                assert caller(plain(content[: len(content) // 2], "m")).status == 422
            elif way == 1:
                assert caller(v2_json([content], "m")).status == 200
            elif way == 2:
                assert caller(v2_binary([content, *PICTURES[:2]], "m")).status == 200
            else:
                assert caller(plain(content, "m")).status == 200
        return made

    return sum(at_once(work, CONNECTIONS, CONNECTIONS))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("seconds", [20, pytest.param(600, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])])
def test_memory_grows_by_no_more_than_30_mb(onnx_file, seconds):
    with serving(onnx_file, "--max_batch", 8, "--deadline", 120) as process:  # what is tried is memory, not speed
        caller, numbers = Caller(process.port), count()
        made = ask_for(caller, SETTLED_AFTER_S, numbers)
        before = resident_bytes(process)
        measured = ask_for(caller, seconds - SETTLED_AFTER_S, numbers, max(LEAST_MEASURED, seconds))
        grown = resident_bytes(process) - before
        shown = f"{before / 1e6:.0f} MB after {SETTLED_AFTER_S:.0f} s, {grown / 1e6:+.1f} MB"
        print(f"\n{made} requests to settle and {measured} more in {seconds} s: {shown}")
        assert grown <= MOST_GROWTH_BYTES
