"""One process per run folder: a lock file that names its holder, and that a killed holder does not keep."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from hybridvit.errors import UsageError

LOCK = "run.lock"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # a network file system shows what another machine wrote after half a minute or so

Holder = dict[str, str | int]


class RunLock:
    """The lock of a run folder, held from construction until `release`.

    The file outlives a killed process; the lock does not. Of a holder on this machine, id and start time are compared
    with those of the running processes. A holder elsewhere counts on in the file every few seconds: if that stands
    still while this process watches, the lock is taken over; no clock is compared with another machine's.

    Raises UsageError when the holder is alive, or tells nothing of itself.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.path = folder / LOCK
        self._released = threading.Event()
        with _guarded(self.path) as file:
            holder = _read(file)
            if holder is None or not _may_live(holder):
                self._take(file)
                return
        if holder["beat"]:
            say(f"{folder} is locked by process {holder['pid']} on {holder['host']}; watching whether that one lives.")
            if _stands_still(self.path, holder):
                with _guarded(self.path) as file:
                    if _read(file) == holder:
                        self._take(file)
                        return
        raise UsageError(
            f"The run folder {folder} is in use by process {holder['pid']} on {holder['host']}. Wait for it, "
            "choose another folder with --output, or, if that machine is known to be off, delete "
            f"{self.path}."
        )

    def release(self) -> None:
        """Give the folder free. Does nothing the second time."""
        self.stop_beating()
        if self.path.exists():
            with _guarded(self.path) as file:
                holder = _read(file)
                if holder is not None and holder["pid"] == os.getpid():
                    self.path.unlink()

    def stop_beating(self) -> None:
        """Leave the file alone from now on: the folder goes elsewhere, with the lock in it."""
        self._released.set()

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}  # other processes of a run are told where it is; they hold nothing

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.path, self._released = state["path"], threading.Event()

    def _take(self, file: TextIO) -> None:
        _write(file, beat=1)
        threading.Thread(target=self._keep_beating, name="run-lock", daemon=True).start()

    def _keep_beating(self) -> None:
        beat = 1
        while not self._released.wait(BEAT_SECONDS):
            beat += 1
            # A full disk or a network that is away for a while is no reason to give a run up.
            with contextlib.suppress(OSError), _guarded(self.path, create=False) as file:
                holder = _read(file)
                if self._released.is_set() or holder is None or holder["pid"] != os.getpid():
                    return
                _write(file, beat)


def _write(file: TextIO, beat: int) -> None:
    pid = os.getpid()
    holder = {"pid": pid, "host": socket.gethostname(), "pids": _pids(), "start": _start_time(pid), "beat": beat}
    file.seek(0)
    file.truncate()
    json.dump(holder, file)
    file.flush()


def _stands_still(path: Path, holder: Holder) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, PATIENCE_SECONDS / 10))
        with _guarded(path) as file:
            if _read(file) != holder:
                return False
    return True


@contextlib.contextmanager
def _guarded(path: Path, *, create: bool = True) -> Iterator[TextIO]:
    """The lock file, opened and held against other processes while it is read and written."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644), "r+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX)
        # Its last holder may have deleted the file while we waited: then we hold a file that no one else can see.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()
        time.sleep(0.01)
    with file:
        yield file


def _read(file: TextIO) -> Holder | None:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        texts = {name: str(holder.get(name, "")) for name in ("host", "pids", "start")}
        return {"pid": int(holder["pid"]), "beat": int(holder.get("beat", 0)), **texts}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # empty or cut short: its writer died in the middle


def _may_live(holder: Holder) -> bool:
    if holder["host"] != socket.gethostname() or holder["pids"] not in ("", _pids()):
        return True
    return _start_time(int(holder["pid"])) == holder["start"] != ""


def _pids() -> str:
    """Which processes the ids are of: containers of one machine, of the same name even, count theirs on their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


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
