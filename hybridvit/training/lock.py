"""One process per run folder: a lock file that names its holder, and that a killed holder does not keep."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from hybridvit.errors import UsageError

LOCK = "run.lock"


class RunLock:
    """The lock of a run folder, held from construction until `release`.

    Raises UsageError when a process that is alive holds it, or one of another machine, whose life cannot be checked.
    The file outlives a killed process; the lock does not: the holder's id and start time are compared with the
    machine's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        with _guarded(self.path) as file:
            holder = _read(file)
            if holder is not None and _may_live(holder):
                raise UsageError(
                    f"The run folder {folder} is in use by process {holder['pid']} on {holder['host']}. Wait for it, "
                    "choose another folder with --output, or, if that machine is known to be off, delete "
                    f"{self.path}."
                )
            file.seek(0)
            file.truncate()
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "start": _start_time(os.getpid())}, file)
            file.flush()

    def release(self) -> None:
        """Give the folder free. Does nothing the second time."""
        if self.path.exists():
            with _guarded(self.path) as file:
                holder = _read(file)
                if holder is not None and holder["pid"] == os.getpid():
                    self.path.unlink()


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[TextIO]:
    """The lock file, opened and held against other processes while it is read and written."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX)
        # Its last holder may have deleted the file while we waited: then we hold a file that no one else can see.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()
        time.sleep(0.01)
    with file:
        yield file


def _read(file: TextIO) -> dict[str, str | int] | None:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return {"pid": int(holder["pid"]), "host": str(holder["host"]), "start": str(holder["start"])}
    except (ValueError, KeyError, TypeError):
        return None  # empty or cut short: its writer died in the middle


def _may_live(holder: dict[str, str | int]) -> bool:
    if holder["host"] != socket.gethostname():
        return True
    return _start_time(int(holder["pid"])) == holder["start"] != ""


def _start_time(pid: int) -> str:
    """When a process of this machine started, in the system's ticks; "" if it does not run.

    Process ids are given again; together with the start time they are not.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass  # it runs, as another user
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "running"  # no /proc, as on macOS
    state_and_rest = stat.rpartition(")")[2].split()
    return "" if state_and_rest[0] == "Z" else state_and_rest[19]  # Z: dead, not yet collected by its parent
