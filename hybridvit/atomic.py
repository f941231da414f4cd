"""Write a file whole or not at all."""

import errno
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridvit.errors import DiskFull, UsageError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
"""What a device answers that takes no more."""

TEMPORARY = ".tmp-"
"""In the name of a file that is not finished."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there takes the place of `path` at the end.

    On any exception before that the temporary file is removed and `path` is as it was. The file and its folder are
    synced, so that a power cut leaves the old file or the new one. The mode is that of the file replaced, else
    0666 & ~umask. Raises UsageError if `path` cannot be a file or its folder is missing, DiskFull if the place takes no
    file, before anything is computed, or the device refuses; the message says whether `path` has the new content
    already.
    """
    check_writable(path)
    temporary = path.with_name(f".{path.stem}{TEMPORARY}{secrets.token_hex(4)}{path.suffix}")  # tools go by suffix
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(_mode(path))
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(
                f"{path} could not be written ({error.strerror}); what stood there before is untouched. Free some "
                "space, or write to another disk."
            ) from error
        if isinstance(error, PermissionError) or error.filename in (temporary, str(temporary)):
            raise not_writable(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    try:
        sync(path.parent)
    except OSError as error:
        raise DiskFull(
            f"{path} is written, but its folder could not be synced ({error.strerror}): after a power cut the file "
            "before it may stand there again. Check the disk."
        ) from error


def check_place(path: Path, *, is_folder: bool = False) -> None:
    """Raise UsageError if `path` cannot be a file, or a folder, or if the folder around it is missing.

    Worth asking before a long computation.
    """
    if path.is_dir() and not is_folder:
        raise UsageError(f"{path} is a folder, but a file is to be written there. Give a file name inside it.")
    if not path.parent.is_dir():
        raise UsageError(f"The folder {path.parent} does not exist, so {path.name} cannot be written. Create it first.")


def check_writable(path: Path, *, is_folder: bool = False) -> None:
    """As `check_place`, and raise DiskFull if the folder around it takes no file: it is read-only, or another's."""
    check_place(path, is_folder=is_folder)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise not_writable(path, error) from error


def check_folder(path: Path) -> None:
    """Raise UsageError for a place of a folder that a file takes."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, but a folder is to be written there. Name another.")


def make_folder(path: Path) -> None:
    """Make a folder, with those around it, where there is none. Raises UsageError as `check_folder`."""
    check_folder(path)
    path.mkdir(parents=True, exist_ok=True)


def not_writable(path: Path, error: OSError) -> DiskFull:
    """What to raise for a place that takes no file."""
    return DiskFull(f"{path} could not be written ({error.strerror}). Choose a place that you may write to.")


def write_text(path: Path, text: str) -> None:
    """Write `text`, atomically: the same bytes on every system, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _mode(path: Path) -> int:
    if path.exists():
        return path.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def sync(path: Path) -> None:
    """Have the device hold what was written to a file, or renamed into a folder. Raises OSError if it refuses."""
    is_windows = sys.platform == "win32"
    if is_windows and path.is_dir():  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)  # there only a writer may sync
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some network file systems sync none
            raise
    finally:
        os.close(handle)
