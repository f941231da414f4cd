"""A job in a process of its own: what would clash, print or die inside this one does so there.

Scripts that ask for one need the `if __name__ == "__main__":` that multiprocessing asks for (main_module.py).
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from hybridvit.errors import HybridViTError
from hybridvit.import_path import without_current_folder
from hybridvit.main_module import refuse_at_import, refused

Result = TypeVar("Result")

CAN_FORK = sys.platform == "linux"  # elsewhere a fork of a process that has loaded libraries may die in them
LAST_LINES = 5  # of what a child printed before it died
ENDING_SECONDS = 10  # for a child to put away what it has begun
KILLED = -9  # the exit code of a process that the kernel ended, as it does when memory runs out


class ChildDied(Exception):
    """A child that ended without an answer: with an exit code, negative for a signal, after it had printed lines."""

    def __init__(self, code: int, printed: str) -> None:
        how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        lines = [line.strip() for line in printed.strip().splitlines()[-LAST_LINES:]]
        super().__init__(f"{how}; the last it said: {' / '.join(lines) or 'nothing'}")
        self.code, self.last_lines = code, lines
        self.was_killed = code == KILLED


class Child:
    """The parent's end of a process that runs `work` with the other end of a pipe.

    With `packages` it is a fork, where those are safe, of one process that has imported them for all: they lie in
    memory once. The packages of the first such child are those of all.
    """

    def __init__(self, work: Callable[[Connection], None], *, packages: Sequence[str] = ()) -> None:
        refuse_at_import()
        context: Any = multiprocessing.get_context("forkserver" if packages and CAN_FORK else "spawn")
        if packages and CAN_FORK:
            context.set_forkserver_preload(list(packages))
        self._folder = tempfile.TemporaryDirectory(prefix="hybridvit-")
        self._log = Path(self._folder.name, "log.txt")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(work, theirs, self._log))
        with without_current_folder():
            self._process.start()
        theirs.close()
        self.pid: int = self._process.pid

    def send(self, question: object) -> None:
        """Give the child something to read; one that has died says so when its answer is asked for."""
        with suppress(OSError):
            self._pipe.send(question)

    def receive(self) -> Any:
        """Wait for what the child sends.

        Raises the HybridViTError that it sends or ends with, UsageError where its script is not ready for it, or
        ChildDied.
        """
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            if (reason := refused([self._process])) is not None:
                raise reason from None
            raise ChildDied(self._process.exitcode, self._printed()) from None
        if isinstance(answer, HybridViTError):
            raise answer
        return answer

    @property
    def is_alive(self) -> bool:
        """Whether the child has not ended yet."""
        return self._process.is_alive()

    def interrupt(self) -> None:
        """Do to the child what Ctrl-C does; on Windows that reaches it by itself."""
        if sys.platform != "win32":
            os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the child at once; another thread that waits for its answer is told ChildDied, and calls `end`."""
        with suppress(ValueError):  # it was put away meanwhile
            self._process.kill()

    def end(self, *, patience_s: float = 0.0) -> str:
        """End the child, at once or after so long, and return all that it printed."""
        self._process.join(patience_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        printed = self._printed()
        self._pipe.close()
        self._process.close()
        self._folder.cleanup()
        return printed

    def _printed(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""


def in_child(task: Callable[[], Result], *, show: Callable[[str], None] = lambda _: None) -> Result:
    """The result of `task`, computed in a process of its own; `show` is given what it printed.

    Raises the HybridViTError of the child, or ChildDied.
    """
    child = Child(partial(_answer, task))
    try:
        return child.receive()
    except KeyboardInterrupt:
        child.interrupt()
        raise
    finally:
        show(child.end(patience_s=ENDING_SECONDS))


def _answer(task: Callable[[], object], pipe: Connection) -> None:
    pipe.send(task())


def _live(work: Callable[[Connection], None], pipe: Connection, log: Path) -> None:
    end_with_parent()
    with log.open("wb") as printed:
        for descriptor in (1, 2):
            os.dup2(printed.fileno(), descriptor)
    try:
        work(pipe)
    except HybridViTError as error:
        pipe.send(error)


def end_with_parent() -> None:
    """End this process when its parent is gone: one that was killed tells no one."""
    threading.Thread(target=_wait_and_end, name="parent-watch", daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
