"""Read and write whole files behind URLs, by fsspec: bounded in time, tried again where that can help."""

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hybridvit.errors import SourceFault, UsageError

Result = TypeVar("Result")
_RETRIED_STATUS = (408, 425, 429)  # of the 4xx answers; all other ones are final
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_url(root: str) -> bool:
    """Whether `root` is a URL rather than a folder, one with a drive letter included."""
    return root.find("://") > 1


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try. The waits double; a stalled connection ends after `stall_s` seconds without a byte."""

    attempts: int = 5
    first_wait_s: float = 1.0
    stall_s: float = 60.0


class Remote:
    """Reads and writes files behind URLs of one protocol (http, https, s3, or another that fsspec has).

    Raises `UsageError` if the package for the protocol is not installed.
    """

    def __init__(self, protocol: str, patience: Patience | None = None) -> None:
        self.protocol = protocol
        self.patience = patience or Patience()
        self._pid = -1
        self._made: Any = None
        self._filesystem()

    def __getstate__(self) -> dict[str, Any]:
        return {"protocol": self.protocol, "patience": self.patience, "_pid": -1, "_made": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def read(self, url: str) -> str:
        """The text of a small file. Raises `SourceFault`."""
        return self.read_bytes(url).decode("utf-8", errors="replace")

    def read_bytes(self, url: str) -> bytes:
        """The content of a file. Raises `SourceFault`."""
        return self._try(url, lambda: self._filesystem().cat_file(url))

    def open(self, url: str) -> Any:
        """A file to read parts of, such as the end of a Parquet file. Raises `SourceFault`."""
        return self._try(url, lambda: self._filesystem().open(url, "rb"))

    def find(self, url: str) -> list[str]:
        """The URLs of all files below `url`, sorted; none where nothing is. Raises `SourceFault`."""
        files = self._filesystem()
        return sorted(map(files.unstrip_protocol, self._try(url, lambda: files.find(url))))

    def has(self, url: str) -> bool:
        """Whether there is such a file. Raises `SourceFault` where that cannot be told."""

        def attempt() -> bool:
            try:
                return bool(self._filesystem().info(url)["type"] == "file")
            except FileNotFoundError:
                return False

        return self._try(url, attempt)

    def names(self, url: str) -> list[str]:
        """The names of the files directly in a folder; none where there is no folder. Raises `SourceFault`."""

        def listed() -> list[Any]:
            try:
                return self._filesystem().ls(url, detail=True)
            except FileNotFoundError:
                return []

        entries = self._try(url, listed)
        return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in entries if each["type"] == "file")

    def write(self, url: str, source: Path) -> None:
        """Put a file at `url`, in one request where it is small enough. Raises `SourceFault`."""

        def attempt() -> None:
            files = self._filesystem()
            files.makedirs(url.rpartition("/")[0], exist_ok=True)  # object stores have no folders, and make none
            files.put_file(str(source), url)

        self._try(url, attempt)

    def remove(self, url: str) -> None:
        """Remove a file, if it is there. Raises `SourceFault`."""

        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._filesystem().rm_file(url)

        self._try(url, attempt)

    def fetch(self, url: str, target: Path, check: Callable[[Path], str]) -> None:
        """Write the file behind `url` to `target`. `check` says what is wrong with it, or "" if nothing is.

        Raises `SourceFault` when no attempt brought a right one, or the disk is full.
        """

        def attempt() -> None:
            self._filesystem().get_file(url, str(target))
            if wrong := check(target):
                raise _WrongContent(wrong)

        self._try(url, attempt)

    def _try(self, url: str, attempt: Callable[[], Result]) -> Result:
        for number in range(1, self.patience.attempts + 1):
            try:
                return attempt()
            except Exception as error:  # each protocol's library raises its own kinds
                fault = _judged(error)
                if fault.is_final or number == self.patience.attempts:
                    tries = f" in {number} attempts" if number > 1 else ""
                    raise SourceFault(f"{url} could not be fetched{tries}: {fault.reason}. {fault.advice}") from error
            time.sleep(self.patience.first_wait_s * 2 ** (number - 1))
        raise AssertionError("the last attempt returns or raises")

    def _filesystem(self) -> Any:
        """fsspec's, made anew in a forked process: its connections and its thread are not for two."""
        if self._pid != os.getpid():
            self._pid, self._made = os.getpid(), _open(self.protocol, self.patience)
        return self._made


class _WrongContent(Exception):
    """What arrived is not the file that was indexed."""


def _open(protocol: str, patience: Patience) -> Any:
    try:
        import fsspec

        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if protocol in ("http", "https"):
            import aiohttp

            # No limit on the whole: a large shard over a slow line may take its time as long as bytes arrive.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.stall_s, sock_read=patience.stall_s)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        elif protocol == "s3":
            options["config_kwargs"] = {"connect_timeout": patience.stall_s, "read_timeout": patience.stall_s}
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise UsageError(
            f'Reading {protocol}:// URLs needs a package that is not installed ({error}). Run: pip install "'
            'hybridvit[remote]".'
        ) from error
    except ValueError as error:
        raise UsageError(
            f"'{protocol}://' is no kind of URL that can be read: {error}. Use http, https or s3."
        ) from error


class _Fault(NamedTuple):
    """What a failed attempt comes to."""

    reason: str
    advice: str = "Check the network, and resume the run."
    is_final: bool = False  # whether another attempt would end the same


def _judged(error: Exception) -> _Fault:
    message = " ".join(str(error).split()) or "no reason given"
    reason = f"{message[:200]} ({type(error).__name__})"
    status = getattr(error, "status", None)  # of aiohttp's ClientResponseError
    if isinstance(error, FileNotFoundError):
        return _Fault("there is no such file", "Check the URL, and that all files of the set were uploaded.", True)
    if isinstance(error, _WrongContent):
        advice = "If the shards were written again, put the index that belongs to them beside them (hybridvit index)."
        return _Fault(message, advice)
    if isinstance(error, OSError) and error.errno in _DISK:
        return _Fault(reason, "Free some space, or set data.cache to a folder on a larger disk.", True)
    if isinstance(status, int):
        reason = f"the server answers {status} ({getattr(error, 'message', '') or message})"
    if isinstance(error, PermissionError) or status in (401, 403):
        advice = "Check that you may read it; for s3, the credentials in the environment (AWS_PROFILE, "
        return _Fault(reason, f"{advice}AWS_ACCESS_KEY_ID).", True)
    if isinstance(error, TimeoutError):
        return _Fault("no byte arrived for too long")
    is_refused = isinstance(status, int) and 400 <= status < 500 and status not in _RETRIED_STATUS
    return _Fault(reason, is_final=is_refused or isinstance(error, IsADirectoryError))
