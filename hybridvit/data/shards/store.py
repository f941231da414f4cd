"""Where the bytes of shards come from: a folder of this machine, or a URL through the cache."""

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from hybridvit.data.shards.cache import ShardCache, touch
from hybridvit.data.shards.index import INDEX, KEYS, SAMPLES, Shard, ShardIndex, read_head
from hybridvit.data.shards.remote import Patience, Remote, is_url
from hybridvit.errors import DatasetError, SourceFault, UsageError, command_line

_MOST_OPEN = 128  # shards that a process keeps open
_TOUCH_EVERY_S = 60.0


class Store(ABC):
    """Reads parts of shards. Can be sent to other processes, and used after a fork."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_files": OrderedDict()}

    @abstractmethod
    def index(self) -> ShardIndex:
        """The index beside the shards. Raises `DatasetError`."""

    @abstractmethod
    def open(self, shard: Shard) -> BinaryIO:
        """A whole shard, to be closed by the caller. Raises `SourceFault`."""

    def expect(self, shards: Sequence[Shard]) -> None:
        """Be told which shards are wanted now and next, in this order."""
        return

    def check_room(self, shards: Sequence[Shard], window: int) -> None:
        """Raise UsageError if two windows of the largest shards cannot be held at once."""
        return

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        """A part of a shard. Raises `SourceFault`."""
        file = self._files.pop(shard.name, None) or self.open(shard)
        self._files[shard.name] = file  # now the last to be closed
        if len(self._files) > _MOST_OPEN:
            self._files.popitem(last=False)[1].close()
        try:
            data = _read_at(file, offset, length)
        except OSError as error:
            raise SourceFault(f"{self.root}/{shard.name} cannot be read: {error.strerror}. Check the disk.") from error
        if len(data) != length:
            raise SourceFault(f"{self.root}/{shard.name} ends before byte {offset + length:,}. Copy it again.")
        return data

    def __del__(self) -> None:  # data sets are closed by no one; their files are open as long as they live
        for file in getattr(self, "_files", {}).values():
            file.close()


class FolderStore(Store):
    """Shards in a folder, read where they lie."""

    def index(self) -> ShardIndex:
        folder = Path(self.root)
        try:
            text = (folder / INDEX).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            if folder.is_dir():
                raise DatasetError(
                    f"{folder} has no {INDEX}, which says where in the shards each image lies. Write it once: "
                    f"{command_line('hybridvit', 'index', folder)}"
                ) from error
            raise DatasetError(f"{folder}, which is to hold shards, is no folder. Check the path.") from error
        return ShardIndex(text, folder / SAMPLES, folder / KEYS, str(folder / INDEX))

    def open(self, shard: Shard) -> BinaryIO:
        path = Path(self.root) / shard.name
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise SourceFault(
                f"{path} cannot be opened: {error.strerror}. It is in the index: copy it again."
            ) from error
        size = os.fstat(file.fileno()).st_size
        if size != shard.num_bytes:
            file.close()
            raise SourceFault(
                f"{path} has {size:,} bytes, but {INDEX} was written for {shard.num_bytes:,}. Copy it again, or, if "
                f"the shards were changed, write the index again: {command_line('hybridvit', 'index', self.root)}"
            )
        return file


class CachedStore(Store):
    """Shards behind a URL, fetched whole into a cache; those expected next are fetched ahead in a thread."""

    def __init__(self, root: str, cache: ShardCache, patience: Patience | None = None) -> None:
        super().__init__(root)
        self.cache = cache
        self.remote = Remote(root.partition("://")[0], patience)
        self._touched: dict[str, float] = {}
        self._expected: Sequence[Shard] = ()
        self._thread: threading.Thread | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_thread": None, "_expected": ()}

    def index(self) -> ShardIndex:
        url = f"{self.root}/{INDEX}"
        try:
            text = self.remote.read(url)
        except SourceFault as fault:
            raise DatasetError(
                f"{fault} Shards are trained on with this file beside them. Where they lie as files, "
                "`hybridvit index FOLDER` writes it and two more; upload all three."
            ) from fault
        files = read_head(text, url)["files"]
        paths = []
        for name in (SAMPLES, KEYS):
            parts = {"sha256": files[name]["sha256"], "num_bytes": files[name]["num_bytes"], "suffix": ".npy"}
            with self.cache.open(self.remote, f"{self.root}/{name}", **parts) as file:
                paths.append(Path(str(file.name)))
        return ShardIndex(text, paths[0], paths[1], url)

    def open(self, shard: Shard) -> BinaryIO:
        self._touched[shard.name] = time.monotonic()
        return self.cache.open(self.remote, self._url(shard), sha256=shard.sha256, num_bytes=shard.num_bytes)

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        data = super().read(shard, offset, length)
        now = time.monotonic()
        if now - self._touched.get(shard.name, 0.0) > _TOUCH_EVERY_S:
            self._touched[shard.name] = now
            touch(self.cache.folder / f"{shard.sha256}.tar")
        return data

    def expect(self, shards: Sequence[Shard]) -> None:
        """Every process begins elsewhere, so that they fetch different ones."""
        keep = {shard.name for shard in shards}
        for name in self._files.keys() - keep:  # an evicted file takes room until it is closed
            self._files.pop(name).close()
        half = len(shards) // 2
        turn = os.getpid() % max(half, 1)
        self._expected = [*shards[turn:half], *shards[:turn], *shards[half:]]
        if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._fetch_expected, name="shards ahead", daemon=True)
            self._thread.start()

    def _fetch_expected(self) -> None:
        done: Sequence[Shard] | None = None
        while done is not self._expected:
            done = self._expected
            for shard in done:
                if done is not self._expected:
                    break
                with suppress(DatasetError):  # who needs the shard will meet the fault, and report it
                    self.cache.fetch_ahead(
                        self.remote, self._url(shard), sha256=shard.sha256, num_bytes=shard.num_bytes
                    )

    def check_room(self, shards: Sequence[Shard], window: int) -> None:
        window = min(window, len(shards))
        largest = sorted((shard.num_bytes for shard in shards), reverse=True)
        needed = min(2 * sum(largest[:window]), sum(largest))
        if needed > self.cache.max_bytes:
            raise UsageError(
                f"Recipe key 'data.cache_gb' is {self.cache.max_bytes / 1e9:g}, but {window} shards of {self.root} are "
                f"shuffled together while the next ones are fetched, which takes {needed / 1e9:.3g} GB. Raise it, or "
                "lower data.shuffle_shards."
            )

    def _url(self, shard: Shard) -> str:
        return f"{self.root}/{shard.name}"


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    if sys.platform == "win32":  # where no fork shares a file's position with other processes
        file.seek(offset)
        return file.read(length)
    return os.pread(file.fileno(), length, offset)


def open_store(root: str, cache: ShardCache | None, patience: Patience | None = None) -> Store:
    """The store for a folder or a URL; a URL needs a cache."""
    if not is_url(root):
        return FolderStore(str(Path(root).expanduser()))
    if cache is None:
        raise UsageError(f"{root} is a URL, and shards from there are kept in a cache. Give one.")
    return CachedStore(root, cache, patience)
