"""A process for each candidate: its threads, its memory and its death are its own, and it takes its turn when told.

Candidates come from nurseries, `python -m hybridvit.measure.worker PACKAGES`, one for PyTorch and one for the rest. On
Linux these fork for each candidate, so that PyTorch lies in memory once and opening does not wait for its import.
Elsewhere, where forking is not safe, each has a nursery of its own. A line of JSON in, a line out.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NoReturn, TextIO

from hybridvit.card import with_tuples
from hybridvit.child import error_as_result, error_from
from hybridvit.errors import HybridViTError, OutOfMemory, ProcessLost
from hybridvit.machine.threads import given_environment
from hybridvit.measure.candidate import Candidate

COMMAND = (sys.executable, "-m", "hybridvit.measure.worker")
CAN_FORK = sys.platform == "linux"


class Worker:
    """One opened candidate, in its process."""

    def __init__(self, nursery: "Nursery", number: int, candidate: Candidate, opened: dict[str, Any]) -> None:
        self.candidate = candidate
        self.pid: int = opened["pid"]
        self.memory_mib: float | None = opened["memory_mib"]
        self.is_stable: bool = opened["is_stable"]
        self.is_pinned: bool = opened["is_pinned"]
        self._nursery, self._number = nursery, number

    def turn(self, calls: int) -> Sequence[float]:
        """The times (ms) of so many calls. Raises OutOfMemory if the process was killed, ProcessLost if it died."""
        return self._nursery.ask({"number": self._number, "calls": calls})["times_ms"]


class Nurseries:
    """Opens candidates, and ends all their processes at the end; a context manager."""

    def __init__(self) -> None:
        self._open: list[Nursery] = []

    def __enter__(self) -> "Nurseries":
        return self

    def __exit__(self, *_: object) -> None:
        for nursery in self._open:
            nursery.close()

    def worker(self, candidate: Candidate) -> Worker:
        """Open `candidate`. Raises its error; OutOfMemory if its process was killed, ProcessLost if it died."""
        packages = _packages(candidate)
        nursery = next((each for each in self._open if CAN_FORK and each.is_alive and each.packages == packages), None)
        if nursery is None:
            nursery = Nursery(packages)
            self._open.append(nursery)
        return nursery.worker(candidate)


class Nursery:
    """The parent's end of one."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages
        self._count = 0
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._child = subprocess.Popen(
            [*COMMAND, *packages],
            env=given_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            start_new_session=True,  # Ctrl-C is the parent's to act upon
        )

    @property
    def is_alive(self) -> bool:
        """Whether it can open more."""
        return self._child.poll() is None

    def worker(self, candidate: Candidate) -> Worker:
        """Open `candidate`; see `Nurseries.worker`."""
        self._count += 1
        opened = self.ask({"number": self._count, "open": asdict(candidate)})
        return Worker(self, self._count, candidate, opened)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of a worker."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(BrokenPipeError):  # it is dead: what it left tells why
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise self._death(self._child.wait())
        answered = json.loads(line)
        if "died" in answered:
            raise self._death(answered["died"])
        if "error" in answered:
            raise error_from(answered)
        return answered

    def close(self) -> None:
        """End it and all that it opened."""
        if self._child.poll() is None:
            if CAN_FORK:
                os.killpg(self._child.pid, signal.SIGKILL)
            else:
                self._child.kill()
        self._child.communicate()
        self._printed.close()

    def _death(self, code: int) -> HybridViTError:
        if code == -signal.SIGKILL:
            return OutOfMemory("its process was ended by the system, as happens when memory runs out")
        self._printed.seek(0)
        last = self._printed.read().decode(errors="replace").strip().splitlines()[-1:]
        return ProcessLost(f"its process ended with {code}: {' '.join(last) or 'no word'}")


def _packages(candidate: Candidate) -> tuple[str, ...]:
    """What its nursery imports: the other runtimes are light, and OpenVINO hangs in a fork of a process that has it."""
    if candidate.target:
        return ()
    return ("torch", "timm") if candidate.subject.kind == "timm" else ("torch",)


class _Forked:
    """The nursery's end of a worker that it forked."""

    def __init__(self, candidate: dict[str, Any], others: Sequence["_Forked"]) -> None:
        asked, self._questions = os.pipe()
        self._answers, answered = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for place in (self._questions, self._answers, 0, *(end for each in others for end in each.ends)):
                os.close(place)
            _work(candidate, os.fdopen(asked), os.fdopen(answered, "w"))
        os.close(asked)
        os.close(answered)
        self._reader = os.fdopen(self._answers)

    @property
    def ends(self) -> tuple[int, int]:
        """The descriptors that nobody else should hold."""
        return self._questions, self._answers

    def answer(self, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """The worker's answer to `question`, or the one that it begins with; how it died, if it did."""
        if question is not None:
            with suppress(BrokenPipeError):  # how it died is what there is to read
                os.write(self._questions, json.dumps(question).encode() + b"\n")
        line = self._reader.readline()
        if line:
            return json.loads(line)
        return {"died": os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])}


def _work(candidate: dict[str, Any], questions: TextIO, answers: TextIO) -> NoReturn:
    """Open a candidate, then time as many calls as each question says, to the end of the process."""

    def reply(result: dict[str, Any]) -> None:
        answers.write(json.dumps(result) + "\n")
        answers.flush()

    from hybridvit.measure.opened import Opened

    try:
        opened = Opened(Candidate.from_dict(with_tuples(candidate)))
        facts = {"memory_mib": opened.memory_mib, "is_stable": opened.is_stable, "is_pinned": opened.is_pinned}
        reply({"pid": os.getpid(), **facts})
        for line in questions:
            reply({"times_ms": list(opened.turn(json.loads(line)["calls"]))})
    except HybridViTError as error:
        reply(error_as_result(error))
    except MemoryError:
        reply(error_as_result(OutOfMemory("it needs more memory than there is")))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def serve(packages: Sequence[str]) -> None:
    """The nursery: imports `packages`, opens what each line of stdin says, and passes questions on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    for name in packages:
        importlib.import_module(name)
    if not CAN_FORK:
        _work(json.loads(sys.stdin.readline())["open"], sys.stdin, answers)
    workers: dict[int, _Forked] = {}
    for line in sys.stdin:
        question = json.loads(line)
        number = question["number"]
        if "open" in question:
            workers[number] = _Forked(question["open"], list(workers.values()))
            answered = workers[number].answer()
        else:
            answered = workers[number].answer(question)
        answers.write(json.dumps(answered) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1:])
