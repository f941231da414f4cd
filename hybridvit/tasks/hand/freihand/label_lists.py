"""FreiHAND's lists of labels: JSON of up to 1.7 GB, read in constant memory and kept as arrays that files hold."""

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.atomic import replacing
from hybridvit.cache import cache_folder
from hybridvit.errors import DatasetError, DiskFull, one_line

CACHE = ".hybridvit"  # folder of the arrays, in that of the lists
_BLOCK_BYTES = 4 << 20
_LARGEST_ENTRY_BYTES = 16 << 20
_BETWEEN = re.compile(rb"(?<=\])\s*(\])\s*,(?=\s*\[\s*\[)")  # entries that are lists of lists


class Stored:
    """Rows of an array in a file, opened by each process for itself: 300 MB are not sent to workers, nor kept twice."""

    def __init__(self, path: Path, rows: slice = slice(None)) -> None:
        self.path, self.rows = path, rows

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._array[index]

    def __len__(self) -> int:
        return len(self._array)

    def of(self, rows: slice) -> "Stored":
        """Some of the rows; of an array that is whole."""
        return Stored(self.path, rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "rows": self.rows}

    @functools.cached_property
    def _array(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")[self.rows]


def stored(path: Path, shape: tuple[int, ...]) -> Stored:
    """The list in a JSON file, whose entries have that shape, as float32; converted when it is first asked for.

    The array is kept in `.hybridvit` beside the list, or where nothing can be written there, in the user's cache, until
    the list has another size or time. Raises DatasetError for what is no such list, DiskFull.
    """
    facts = path.stat()
    return cached(path, f"{facts.st_size:x}-{facts.st_mtime_ns:x}", shape, lambda: entries(path, shape))


def cached(path: Path, key: str, shape: tuple[int, ...], rows: Callable[[], Iterator[np.ndarray]]) -> Stored:
    """Rows of that shape, which belong to a list, as float32: computed unless they are kept for that key.

    Raises DiskFull, and what `rows` raises.
    """
    folder = _folder(path.parent)
    target = folder / f"{path.stem}-{key}.npy"
    if not target.is_file():
        with replacing(target) as temporary:
            _write(temporary, shape, rows())
        for older in folder.glob(f"{path.stem}-*.npy"):
            if older != target:
                older.unlink(missing_ok=True)
    return Stored(target)


def _folder(root: Path) -> Path:
    """Where the arrays of a data set are kept."""
    folder = root / CACHE
    try:
        folder.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except OSError:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        folder = cache_folder() / "freihand" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskFull(
            f"The labels of {root} are converted once, but neither {root / CACHE} nor {folder} can be written "
            f"({error.strerror}). Set HYBRIDVIT_CACHE to a folder that you may write to."
        ) from error
    return folder


def _write(path: Path, shape: tuple[int, ...], rows: Iterator[np.ndarray]) -> None:
    """One row after the other; how many there are is written into the header at the end, which keeps room for it."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False}
    count = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (0, *shape)})
        for row in rows:
            file.write(row.astype("<f4").tobytes())
            count += 1
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *shape)})


def entries(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The entries of a JSON list, float64, each a list of lists. Raises DatasetError for what is no such list."""
    number = -1
    for number, text in enumerate(_texts(path)):
        try:
            entry = np.array(json.loads(text), np.float64)
        except (ValueError, TypeError) as error:
            raise DatasetError(
                f"{path}, entry {number}: this is no list of numbers ({one_line(error)}). Unpack the file again."
            ) from error
        if entry.shape != shape:
            raise DatasetError(
                f"{path}, entry {number}: it has {_times(entry.shape)} numbers, but FreiHAND's have {_times(shape)}. "
                "Write all of each entry, in that order."
            )
        yield entry
    if number < 0:
        raise DatasetError(f"{path}: the list has no entry. Unpack the file again.")


def numbers(path: Path) -> np.ndarray:
    """The numbers (n, float64) in a JSON list without lists in it, which is small. Raises DatasetError for another."""
    try:
        found = np.array(json.loads(path.read_bytes()), np.float64)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: this is no list of numbers ({one_line(error)}). Unpack the file again.") from error
    if found.ndim != 1:
        raise DatasetError(f"{path}: it holds lists, but each entry has to be one number. Unpack the file again.")
    return found


def _texts(path: Path) -> Iterator[bytes]:
    """The JSON of each entry, by blocks of the file."""
    rest, opened = b"", False
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            rest += block
            if not opened:
                rest = _without_bracket(rest.lstrip(), path)
                opened = True
            *found, rest = _split(rest)
            yield from found
            if len(rest) > _LARGEST_ENTRY_BYTES:
                raise DatasetError(f"{path}: this is no list of lists of lists of numbers. Unpack the file again.")
    rest = rest.rstrip()
    if not rest.endswith(b"]"):
        raise DatasetError(f"{path}: the list does not end, so the file is not whole. Unpack it again.")
    if last := rest[:-1].strip():
        yield last


def _without_bracket(text: bytes, path: Path) -> bytes:
    if not text.startswith(b"["):
        raise DatasetError(f"{path}: the file does not begin with a list. Unpack it again.")
    return text[1:]


def _split(text: bytes) -> list[bytes]:
    """Whole entries, and what follows the last comma between two."""
    pieces, start = [], 0
    for found in _BETWEEN.finditer(text):
        pieces.append(text[start : found.end(1)])
        start = found.end()
    return [*pieces, text[start:]]


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "no"
