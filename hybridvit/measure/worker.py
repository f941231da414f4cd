"""A process for each candidate: its threads, its memory and its death are its own, and it takes its turn when told.

The child is `python -m hybridvit.measure.worker`: a line of JSON in, a line out.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hybridvit.child import error_as_result, error_from, with_tuples
from hybridvit.errors import HybridViTError, OutOfMemory, ProcessLost
from hybridvit.measure.candidate import Candidate

COMMAND = (sys.executable, "-m", "hybridvit.measure.worker")


class Worker:
    """The parent's end. Opens the candidate; raises its error, OutOfMemory if it was killed, else ProcessLost."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            start_new_session=True,  # Ctrl-C is the parent's to act upon
        )
        try:
            opened = self._ask(asdict(candidate))
        except BaseException:
            self.close()
            raise
        self.memory_mib: float | None = opened["memory_mib"]
        self.is_stable: bool = opened["is_stable"]
        self.is_pinned: bool = opened["is_pinned"]

    def turn(self, calls: int) -> Sequence[float]:
        """The times (ms) of so many calls."""
        return self._ask(calls)["times_ms"]

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.communicate()
        self._printed.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def _ask(self, question: Any) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead: what it left tells why
        line = self._child.stdout.readline()
        if not line:
            raise self._death()
        result = json.loads(line)
        if "error" in result:
            raise error_from(result)
        return result

    def _death(self) -> HybridViTError:
        self._child.communicate()
        if self._child.returncode == -signal.SIGKILL:
            return OutOfMemory("it was ended by the system, as happens when memory runs out")
        self._printed.seek(0)
        last = self._printed.read().decode(errors="replace").strip().splitlines()[-1:]
        return ProcessLost(f"its process ended with {self._child.returncode}: {' '.join(last) or 'no word'}")


def serve() -> None:
    """The child's part: open the candidate of the first line, then time as many calls as each further line says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer

    def reply(result: dict[str, Any]) -> None:
        answers.write(json.dumps(result) + "\n")
        answers.flush()

    from hybridvit.measure.opened import Opened

    try:
        opened = Opened(Candidate.from_dict(with_tuples(json.loads(sys.stdin.readline()))))
        reply({"memory_mib": opened.memory_mib, "is_stable": opened.is_stable, "is_pinned": opened.is_pinned})
        for line in sys.stdin:
            reply({"times_ms": list(opened.turn(json.loads(line)))})
    except HybridViTError as error:
        reply(error_as_result(error))
    except MemoryError:
        reply(error_as_result(OutOfMemory("it needs more memory than there is")))


if __name__ == "__main__":
    serve()
