"""Where a job writes: a folder, or a URL of an object store. Each file is there whole or not at all."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from hybridvit.atomic import check_writable, replacing
from hybridvit.data.shards.remote import Remote, is_url
from hybridvit.errors import SourceFault, UsageError

CONTROL = "_job"
"""The folder of what is no part of the answers: readers of tables pass over names that begin so."""


class Place(ABC):
    """Files by their names below one root, with "/" between folders. Can be sent to other processes and machines."""

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """The files directly in a folder of it; none where that is not there."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def open(self, name: str) -> Any:
        """What pyarrow reads a file from."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file. Raises SourceFault where it cannot be read."""

    @abstractmethod
    def fetch(self, name: str, target: Path) -> None:
        """Copy a file of it to `target`."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to, which becomes the file `name` when the context is left without an exception."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def __str__(self) -> str:
        return self.root


class FolderPlace(Place):
    """A folder of this machine, or one that many machines share."""

    def names(self, folder: str = "") -> list[str]:
        path = Path(self.root, folder)
        return sorted(each.name for each in path.iterdir() if each.is_file()) if path.is_dir() else []

    def has(self, name: str) -> bool:
        return Path(self.root, name).is_file()

    def open(self, name: str) -> str:
        return str(Path(self.root, name))

    def read(self, name: str) -> bytes:
        try:
            return Path(self.root, name).read_bytes()
        except OSError as error:
            raise SourceFault(f"{Path(self.root, name)} cannot be read: {error.strerror}. Check the disk.") from error

    def fetch(self, name: str, target: Path) -> None:
        shutil.copyfile(Path(self.root, name), target)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        path = Path(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary

    def remove(self, name: str) -> None:
        Path(self.root, name).unlink(missing_ok=True)


class RemotePlace(Place):
    """What is behind a URL, such as s3://bucket/answers: an object store shows an object once it is whole."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._remote = Remote(root.partition("://")[0])

    def names(self, folder: str = "") -> list[str]:
        return self._remote.names(self._url(folder).rstrip("/"))

    def has(self, name: str) -> bool:
        return self._remote.has(self._url(name))

    def open(self, name: str) -> Any:
        return self._remote.open(self._url(name))

    def read(self, name: str) -> bytes:
        return self._remote.read_bytes(self._url(name))

    def fetch(self, name: str, target: Path) -> None:
        self._remote.fetch(self._url(name), target, lambda _: "")

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="hybridvit-") as folder:
            temporary = Path(folder, name.rpartition("/")[2])
            yield temporary
            self._remote.write(self._url(name), temporary)

    def remove(self, name: str) -> None:
        self._remote.remove(self._url(name))

    def _url(self, name: str) -> str:
        return f"{self.root}/{name}"


def open_place(text: str) -> Place:
    """The place that an --output means. Raises UsageError, or DiskFull, for one that takes no files."""
    if is_url(text):
        if text.partition("://")[0] in ("http", "https"):
            raise UsageError(f"--output is {text}, and web servers take no files. Give a folder, or an s3:// URL.")
        return RemotePlace(text.rstrip("/"))
    folder = Path(text).expanduser().absolute()
    check_writable(folder, is_folder=True)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output is {folder}, a file, but answers are many files. Give a folder.")
    return FolderPlace(str(folder))
