"""The index of a set of shards: where each image lies, so that any of them can be read alone.

index.json         version, class names, kinds of image files, and every shard with its size, hash and sample count
index-samples.npy  one row per sample: offset and length of the image in its shard, label, kind, end of its key
index-keys.npy     the keys, one after the other

The two arrays are mapped, not read: 14 million samples cost each process almost no memory, and its workers none.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.atomic import replacing, write_text
from hybridvit.data.columns import Column
from hybridvit.digest import sha256_of
from hybridvit.errors import DatasetError

INDEX, SAMPLES, KEYS = "index.json", "index-samples.npy", "index-keys.npy"
VERSION = 1
ROW = np.dtype([("offset", "<u8"), ("length", "<u8"), ("key_end", "<u8"), ("label", "<i4"), ("kind", "u1")])


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file."""

    name: str
    num_bytes: int
    sha256: str
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One sample of a shard."""

    key: str
    kind: str  # "jpg": the member is <key>.jpg
    offset: int  # of the image's first byte in the shard
    length: int
    label: int


class ShardIndex:
    """An index, given the text of index.json and the local files that hold its two arrays.

    `source` names it in messages. Sent to another process, it maps the files again. Raises `DatasetError` for an index
    that is damaged or does not fit together.
    """

    def __init__(self, text: str, samples: Path, keys: Path, source: str) -> None:
        head = read_head(text, source)
        self.source = source
        self.class_names: tuple[str, ...] = tuple(head["class_names"])
        self.kinds: tuple[str, ...] = tuple(head["kinds"])
        self.shards = tuple(Shard(**each) for each in head["shards"])
        self.fingerprint = hashlib.sha256(json.dumps(head, sort_keys=True).encode()).hexdigest()
        for path, name in ((samples, SAMPLES), (keys, KEYS)):
            _check_file(path, head["files"][name], source)
        self._files = (samples, keys)
        self._map()
        self._check()

    def _map(self) -> None:
        self.rows, self._keys = (np.load(path, mmap_mode="r", allow_pickle=False) for path in self._files)
        self.starts = np.cumsum([0, *(shard.num_samples for shard in self.shards)])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("rows", "_keys", "starts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()

    def __len__(self) -> int:
        return len(self.rows)

    def shard_of(self, number: int) -> int:
        """The shard that sample `number` is in."""
        return int(np.searchsorted(self.starts, number, side="right")) - 1

    def member(self, number: int) -> str:
        """The name of the image in its shard, such as "cat/one.jpg"."""
        start = int(self.rows["key_end"][number - 1]) if number else 0
        key = bytes(self._keys[start : int(self.rows["key_end"][number])]).decode(errors="surrogateescape")
        return f"{key}.{self.kinds[self.rows['kind'][number]]}"

    def _check(self) -> None:
        """What could otherwise only fail in the middle of a run."""
        rows = self.rows
        fits = rows.dtype == ROW and rows.ndim == 1 and len(rows) == self.starts[-1]
        if fits and len(rows):
            bounds = np.repeat([shard.num_bytes for shard in self.shards], np.diff(self.starts))
            fits = (
                bool((rows["offset"] + rows["length"] <= bounds.astype(np.uint64)).all())
                and int(rows["kind"].max()) < len(self.kinds)
                and bool((np.diff(rows["key_end"].astype(np.int64), prepend=0) >= 0).all())
                and int(rows["key_end"][-1]) == len(self._keys)
            )
        if not fits:
            raise DatasetError(f"{self.source} and its arrays do not fit together. {_REBUILD}")


class Labels(Column):
    """The labels of an index. Sent to another process as its path: the rows would be sent whole."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index

    @property
    def values(self) -> np.ndarray:
        return self._index.rows["label"]


_REBUILD = "Build the index again: hybridvit index FOLDER."


def read_head(text: str, source: str) -> dict[str, Any]:
    """index.json as a value of the right form. Raises `DatasetError`."""
    try:
        head = json.loads(text)
        version = head["version"]
        if version == VERSION:
            for name in (SAMPLES, KEYS):
                head["files"][name]["num_bytes"], head["files"][name]["sha256"]
            [Shard(**each) for each in head["shards"]]
            [*map(str.lower, head["class_names"]), *map(str.lower, head["kinds"])]
    except (ValueError, KeyError, TypeError) as error:
        start = text[:40].split("\n")[0]
        raise DatasetError(f"{source} is no index of shards; it begins with '{start}'. {_REBUILD}") from error
    if version != VERSION:
        raise DatasetError(
            f"{source} is an index of version {version}, but this release reads version {VERSION}. {_REBUILD}"
        )
    return head


def write_index(folder: Path, class_names: Sequence[str], shards: Iterable[tuple[Shard, Sequence[Entry]]]) -> int:
    """Write the three files of an index, index.json last; the number of samples. Raises `DiskFull`."""
    kinds: dict[str, int] = {}
    rows: list[np.ndarray] = []
    keys: list[bytes] = []
    listed: list[Shard] = []
    end = 0
    for shard, entries in shards:
        table = []
        for entry in entries:
            keys.append(entry.key.encode(errors="surrogateescape"))
            end += len(keys[-1])
            kind = kinds.setdefault(entry.kind, len(kinds))
            table.append((entry.offset, entry.length, end, entry.label, kind))
        rows.append(np.array(table, ROW))
        listed.append(shard)
    arrays = {
        SAMPLES: np.concatenate(rows) if rows else np.zeros(0, ROW),
        KEYS: np.frombuffer(b"".join(keys), np.uint8),
    }
    files = {}
    for name, array in arrays.items():
        with replacing(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        files[name] = {"num_bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    head = {
        "version": VERSION,
        "class_names": list(class_names),
        "kinds": list(kinds),
        "files": files,
        "shards": [vars(shard) for shard in listed],
    }
    write_text(folder / INDEX, json.dumps(head, indent=1) + "\n")
    return len(arrays[SAMPLES])


def _check_file(path: Path, expected: dict[str, Any], source: str) -> None:
    try:
        whole = path.stat().st_size == expected["num_bytes"] and sha256_of(path) == expected["sha256"]
    except OSError as error:
        raise DatasetError(
            f"{path}, which belongs to {source}, cannot be read: {error.strerror}. Put it back, or {_REBUILD.lower()}"
        ) from error
    if not whole:
        raise DatasetError(f"{path} is not the file that {source} was written with. {_REBUILD}")
