"""A process of a candidate: its threads, its memory and its death are its own, and it takes its turn when told.

On Linux those of PyTorch are forks of a process that has imported it, so that it lies in memory once and opening does
not wait for its import. The other runtimes are light, and OpenVINO hangs in a fork of a process that has it.
"""

import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from hybridvit.child import Child, ChildDied
from hybridvit.errors import OutOfMemory, ProcessLost
from hybridvit.machine.allocator import keep_freed_memory
from hybridvit.machine.threads import as_given
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.latency import Timed


class Worker:
    """One opened candidate, in its process.

    Raises what opening it raises; OutOfMemory if its process was killed, ProcessLost if it died. `packages` are
    imported once for all candidates of PyTorch.
    """

    memory_mib: float | None
    is_stable: bool
    is_pinned: bool

    def __init__(self, candidate: Candidate, *, packages: Sequence[str] = ("torch",)) -> None:
        self.candidate = candidate
        with as_given():
            self._child = Child(partial(serve, candidate), packages=() if candidate.target else packages)
        self.pid = self._child.pid
        try:
            self.memory_mib, self.is_stable, self.is_pinned = self._receive()
        except BaseException:
            self.end()
            raise

    def turn(self, calls: int) -> Timed:
        """The times of so many calls. Raises OutOfMemory if the process was killed, ProcessLost if it died."""
        self._child.send(calls)
        return self._receive()

    def end(self) -> None:
        """End the process."""
        self._child.end()

    def _receive(self) -> Any:
        try:
            return self._child.receive()
        except ChildDied as death:
            if death.was_killed:
                reason = "its process was ended by the system, as happens when memory runs out"
                raise OutOfMemory(reason) from None
            raise ProcessLost(f"its process ended with {death.code}: {(death.last_lines or ['no word'])[-1]}") from None


def serve(candidate: Candidate, pipe: Connection) -> None:
    """Open a candidate, then time as many calls as each question says, to the end of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon
    keep_freed_memory()
    from hybridvit.measure.opened import Opened

    try:
        opened = Opened(candidate)
        pipe.send((opened.memory_mib, opened.is_stable, opened.is_pinned))
        with suppress(EOFError):  # the parent is done
            while True:
                pipe.send(opened.turn(pipe.recv()))
    except MemoryError:
        raise OutOfMemory("it needs more memory than there is") from None
