"""Shards from URLs, kept on this machine up to a bound; one cache for all processes of the machine.

<sha256>.tar       a whole shard, checked; named by its content, so that it can never be a stale one
<sha256>.npy       an array of an index, the same
.<sha256>...tmp-*  one that is arriving; its name holds its final size, which counts towards the bound
*.lock             who fetches what; empty
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from hybridvit.data.shards.remote import Remote
from hybridvit.digest import sha256_of
from hybridvit.errors import SourceFault, UsageError

_ABANDONED_S = 3600.0  # a file that nothing was written to for so long has no writer any more


class ShardCache:
    """A folder of fetched files of at most `max_bytes`; the least recently used ones make room for new ones.

    A file that is open stays readable when it is evicted (the disk takes it back when it is closed; Windows evicts none
    that is open), and one that is missing is fetched again, so processes need not know of each other. Raises
    `UsageError` if the folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder.expanduser().absolute()
        self.max_bytes = max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".lock").touch()
        except OSError as error:
            raise UsageError(
                f"The cache folder {self.folder} cannot be written to ({error.strerror}). Name another: --data.cache."
            ) from error

    def open(self, remote: Remote, url: str, *, sha256: str, num_bytes: int, suffix: str = ".tar") -> BinaryIO:
        """The file behind `url`, open for reading; fetched if it is not there. Raises `SourceFault`."""
        path = self.folder / f"{sha256}{suffix}"
        while True:
            with suppress(FileNotFoundError):
                file = path.open("rb", buffering=0)
                if os.fstat(file.fileno()).st_size == num_bytes:
                    touch(path)
                    return file
                file.close()  # cut short by a crash of the machine: rename reached the disk before the content
                path.unlink(missing_ok=True)
            with self._lock(path).acquire():
                if not path.exists():
                    self._fetch(remote, url, path, sha256, num_bytes)

    def fetch_ahead(self, remote: Remote, url: str, *, sha256: str, num_bytes: int, suffix: str = ".tar") -> None:
        """Fetch the file if it is not there and no one else is at it. Raises `SourceFault`."""
        path = self.folder / f"{sha256}{suffix}"
        with suppress(Timeout), self._lock(path).acquire(timeout=0):
            if not path.exists():
                self._fetch(remote, url, path, sha256, num_bytes)

    def _lock(self, path: Path) -> FileLock:
        return FileLock(path.with_suffix(".lock"), is_singleton=False)

    def _folder_lock(self) -> FileLock:
        return FileLock(self.folder / ".lock", is_singleton=False)

    def _fetch(self, remote: Remote, url: str, path: Path, sha256: str, num_bytes: int) -> None:
        with self._room_for(path, num_bytes) as temporary:
            remote.fetch(url, temporary, lambda arrived: _wrong(arrived, sha256, num_bytes))
            with self._folder_lock():  # a listing sees the file under one of its names
                os.replace(temporary, path)
                self._evict(0, with_reserved=False)  # more may have been fetched at once than there is room for

    @contextmanager
    def _room_for(self, path: Path, num_bytes: int) -> Iterator[Path]:
        """A temporary file that `num_bytes` are set aside for; it is gone at the end."""
        if num_bytes > self.max_bytes:
            raise SourceFault(
                f"{path.name} has {num_bytes:,} bytes, more than the whole cache ({self.max_bytes:,}). Raise "
                "data.cache_gb."
            )
        temporary = self.folder / f".{path.stem}.{num_bytes}.tmp-{secrets.token_hex(4)}"
        try:
            with self._folder_lock():
                for left in self.folder.glob(f".{path.stem}.*.tmp-*"):  # its lock is ours: the writer is gone
                    left.unlink(missing_ok=True)
                self._evict(num_bytes, with_reserved=True)
                temporary.touch()
            yield temporary
        except OSError as error:
            raise SourceFault(
                f"The cache {self.folder} cannot be written to ({error.strerror}). Check the disk, or name another "
                "folder: --data.cache."
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _evict(self, num_bytes: int, *, with_reserved: bool) -> None:
        """Delete the least recently used files until `num_bytes` more fit, beside what is reserved if that counts."""
        used, kept = num_bytes, []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                status = entry.stat()
                if ".tmp-" in entry.name:
                    if time.time() - status.st_mtime > _ABANDONED_S:
                        os.unlink(entry.path)
                    elif with_reserved:
                        used += int(entry.name.split(".")[2])
                elif entry.name.endswith((".tar", ".npy")):
                    used += status.st_size
                if entry.name.endswith(".tar"):  # arrays of an index stay: running processes map them by name
                    kept.append((status.st_mtime_ns, entry.path, status.st_size))
        for _, path, size in sorted(kept):
            if used <= self.max_bytes:
                return
            with suppress(PermissionError):  # on Windows a file that is open stays
                Path(path).unlink(missing_ok=True)
                used -= size


def touch(path: Path) -> None:
    """Note that a cached file is in use; harmless if it was evicted."""
    with suppress(OSError):
        os.utime(path)


def _wrong(arrived: Path, sha256: str, num_bytes: int) -> str:
    size = arrived.stat().st_size
    if size != num_bytes:
        return f"{size:,} bytes arrived, but the index says {num_bytes:,}"
    if sha256_of(arrived) != sha256:
        return "its content is not what the index was written for (other sha256)"
    return ""
