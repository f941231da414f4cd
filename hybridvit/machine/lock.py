"""One process per folder: a lease that names its holder, and that a killed holder does not keep."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import MarkerSoftFileLock, SoftFileLease, Timeout

from hybridvit.errors import UsageError

LOCK = "run.lock"
BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0  # a network file system shows what another machine wrote after half a minute or so


class RunLock:
    """The lock of the folder of a run or a job, held from construction until `release`.

    filelock gives the lease: of a holder in this container or machine it compares id and start time with those of the
    running processes. A holder elsewhere touches the file every few seconds: if that stands still while this process
    watches, the lease is taken over; no clock is compared with another machine's.

    Raises UsageError when the holder is alive.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.path = folder / LOCK
        self._lease = SoftFileLease(
            self.path, lease_duration=LEASE_SECONDS, heartbeat_interval=BEAT_SECONDS, thread_local=False
        )
        if self._acquire(seconds=0.0):
            return
        owner = self._lease.owner
        host = owner.hostname.partition("?")[0] if owner else ""  # what follows tells containers of one name apart
        holder = f"process {owner.pid} on {host}" if owner else "another process"
        if owner is None or owner.hostname != _this_host():
            say(f"{folder} is locked by {holder}; watching whether that one lives.")
            if self._acquire(seconds=2 * LEASE_SECONDS):
                return
        raise UsageError(
            f"The folder {folder} is in use by {holder}. Wait for it, choose another folder with --output, or, if "
            f"that machine is known to be off, delete {self.path}."
        )

    def release(self) -> None:
        """Give the folder free. Does nothing the second time."""
        self._lease.release()

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}  # other processes of a run are told where it is; they hold nothing

    def _acquire(self, *, seconds: float) -> bool:
        """Whether the lease is ours within `seconds`; a beat of its holder ends the wait."""
        seen = self._last_beat()
        try:
            self._lease.acquire(
                timeout=seconds,
                poll_interval=LEASE_SECONDS / 60,
                cancel_check=lambda: self._last_beat() not in (0, seen),
            )
        except Timeout:
            return False
        return True

    def _last_beat(self) -> int:
        try:
            return self.path.stat().st_mtime_ns
        except OSError:  # given free just now
            return 0


def _this_host() -> str:
    """The name that filelock gives this machine, or this container of it."""
    with tempfile.TemporaryDirectory() as folder, MarkerSoftFileLock(Path(folder, LOCK)) as lock:
        assert lock.owner is not None
        return lock.owner.hostname
