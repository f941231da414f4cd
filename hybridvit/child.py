"""Carry out a job in a process of its own: what would clash, print or die inside this one does so there.

The child is `python -m MODULE JOB RESULT`, two JSON files; its `main` is `answer(carry_out)`.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybridvit import errors
from hybridvit.atomic import write_text
from hybridvit.card import with_tuples
from hybridvit.errors import HybridViTError

LAST_LINES = 5  # of what a child printed before it died
ENDING_SECONDS = 10  # for a child to put away what it has begun


class ChildDied(Exception):
    """A child that ended without a result: with an exit code, negative for a signal, after it had printed something."""

    def __init__(self, code: int, printed: str) -> None:
        how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        last = " / ".join(line.strip() for line in printed.strip().splitlines()[-LAST_LINES:]) or "nothing"
        super().__init__(f"{how}; the last it said: {last}")
        self.last = last
        self.was_killed = code == -signal.SIGKILL  # as the kernel does when memory runs out


def in_child(
    command: tuple[str, ...], job: Mapping[str, Any], *, show: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The result of `job` from the child that `command` starts; `show` is given what it printed.

    Raises the HybridViTError of the child, or ChildDied.
    """
    with tempfile.TemporaryDirectory(prefix="hybridvit-") as folder:
        asked, answered, printed = (Path(folder, name) for name in ("job.json", "result.json", "log.txt"))
        asked.write_text(json.dumps(job), encoding="utf-8")
        with printed.open("wb") as log:
            child = subprocess.Popen(
                [*command, str(asked), str(answered)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                code = child.wait()
            except BaseException:
                end(child)
                raise
        text = printed.read_text(encoding="utf-8", errors="replace")
        show(text)
        if not answered.exists():
            raise ChildDied(code, text)
        result = json.loads(answered.read_text(encoding="utf-8"))
    if "error" in result:
        raise error_from(result)
    return result


def answer(carry_out: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The child's part: read the job, write its result; errors that users cause are results too."""
    asked, answered = (Path(word) for word in sys.argv[1:])
    try:
        result: Mapping[str, Any] = carry_out(with_tuples(json.loads(asked.read_text(encoding="utf-8"))))
    except HybridViTError as error:
        result = error_as_result(error)
    write_text(answered, json.dumps(result))


def error_as_result(error: HybridViTError) -> dict[str, str]:
    """An error as plain types."""
    return {"error": type(error).__name__, "message": str(error)}


def error_from(result: Mapping[str, str]) -> HybridViTError:
    """The inverse of `error_as_result`."""
    return getattr(errors, result["error"])(result["message"])


def end(child: "subprocess.Popen[Any]") -> None:
    """Ask a child to end as Ctrl-C does, and end it after ENDING_SECONDS."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
