"""Pairs of processes that train together, without a launcher that would end one when the other has.

    pairs.py FOLDER TIMEOUT_SECONDS WHAT:RANK...

In the second step of each pair, its process RANK raises, kills itself or hangs (WHAT: raise, kill, hang). All pairs run
at the same time, as forks of this process, which has imported everything for them; what each process wrote to stderr is
in FOLDER/WHAT-RANK/stderr-0.txt and -1. The last line says how they ended, as JSON: a list by pair of the ids, the exit
codes and the times of the end.
"""

import dataclasses
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tiny_runs import TINY, TinyTask

from hybridvit.cli.main import guarded
from hybridvit.errors import DatasetError
from hybridvit.training.train import train


def train_disturbed(what: str, guilty: bool, folder: Path, timeout_seconds: float) -> int:
    """The run of one of two processes; the exit code."""

    def disturb(place: str, count: int) -> None:
        if (place, count) != ("loss", 5) or not guilty:
            return
        if what == "raise":
            raise DatasetError("The images are gone.")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "hangs").touch()
        time.sleep(1000)

    data = dataclasses.replace(TINY.data, micro_batch=2)
    recipe = dataclasses.replace(TINY, data=data, devices=2, timeout_seconds=timeout_seconds, output=str(folder))
    train(recipe, progress=False, task=TinyTask(disturb))
    return 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(what: str, guilty: int, rank: int, port: int, folder: Path, timeout_seconds: float) -> int:
    """Fork process `rank` of a pair; its id."""
    process = os.fork()
    if process:
        return process
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    with (folder / f"stderr-{rank}.txt").open("wb") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(guarded(lambda: train_disturbed(what, rank == guilty, folder / "run", timeout_seconds), debug=False))


def main(folder: Path, timeout_seconds: float, pairs: Sequence[tuple[str, int]]) -> None:
    """Start all pairs, and wait for all of their processes."""
    processes: list[list[int]] = []
    for what, guilty in pairs:
        place = folder / f"{what}-{guilty}"
        place.mkdir()
        port = free_port()
        processes.append([start(what, guilty, rank, port, place, timeout_seconds) for rank in (0, 1)])
    ended: dict[int, tuple[int, float]] = {}
    while len(ended) < 2 * len(pairs):
        process, status = os.wait()
        ended[process] = os.waitstatus_to_exitcode(status), time.time()
    print(json.dumps([[(process, *ended[process]) for process in pair] for pair in processes]))


if __name__ == "__main__":
    given, seconds, *words = sys.argv[1:]
    main(Path(given), float(seconds), [(what, int(rank)) for what, _, rank in (word.partition(":") for word in words)])
