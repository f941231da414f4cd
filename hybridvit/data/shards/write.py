"""From an image folder to shards: every file copied byte for byte, in an order that mixes the classes."""

import errno
import os
import random
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

from hybridvit.atomic import NO_SPACE, sync
from hybridvit.data.listing import Listing
from hybridvit.data.scan import check_apart, relative
from hybridvit.data.seeding import derive_seed
from hybridvit.data.shards.index import Entry, Shard, write_index
from hybridvit.data.shards.scan import scan_shard
from hybridvit.errors import DatasetError, DiskFull, UsageError

_BLOCK = 512  # tar's unit
_TEMPORARY = ".tmp-"

Advance = Callable[[int], None]
"""Is told how many more samples are written."""


def check_output(output: Path, source: Path | None = None) -> None:
    """Raise UsageError unless `output` is absent or an empty folder inside an existing one, and not in `source`."""
    if source is not None:
        check_apart(output, source)
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise UsageError(f"The output {output} exists and is not an empty folder. Name another, or remove it.")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"The folder {output.absolute().parent} does not exist. Create it first.")


def write_shards(
    splits: dict[str, Listing[int]],
    output: Path,
    *,
    shard_bytes: int,
    seed: int = 0,
    advance: Advance = lambda _: None,
) -> list[tuple[str, int, int]]:
    """Write output/<split>/shard-*.tar and their indices; per split its name, shards and samples.

    The split named "" is written to `output` itself. `output` appears complete or not at all. A key is the path of the
    file inside its split, without the extension. Raises `UsageError` as `check_output`, `DiskFull`, and `DatasetError`
    for a file that cannot be read.
    """
    check_output(output)
    _check_space(splits, output)
    temporary = output.absolute().with_name(f".{output.absolute().name}{_TEMPORARY}{secrets.token_hex(4)}")
    try:
        done = []
        for split, listing in splits.items():
            folder = temporary / split
            folder.mkdir(parents=True)
            num_shards = _write_split(listing, folder, shard_bytes, derive_seed("shards", seed), advance)
            done.append((split, num_shards, len(listing.paths)))
            sync(folder)
        sync(temporary)
        if output.exists():
            output.rmdir()  # Windows puts no folder in the place of another
        os.replace(temporary, output)
        sync(output.absolute().parent)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(
                f"{output} could not be written ({error.strerror}); nothing of it is left. Free some space, or write "
                "to another disk."
            ) from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"Another process has filled {output} in the meantime. Name another folder.") from error
        raise UsageError(f"{output} could not be written ({error.strerror}). Choose another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def leftovers(output: Path) -> list[Path]:
    """Temporary folders of writers of `output` that were killed, or still write."""
    output = output.absolute()
    return sorted(output.parent.glob(f".{output.name}{_TEMPORARY}*"))


def _write_split(listing: Listing[int], folder: Path, shard_bytes: int, seed: int, advance: Advance) -> int:
    keys = _keys(listing)
    order = list(range(len(keys)))
    random.Random(seed).shuffle(order)

    def written() -> Iterator[tuple[Shard, Sequence[Entry]]]:
        for number, places in enumerate(_cut(listing, order, shard_bytes)):
            path = folder / f"shard-{number:05d}.tar"
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
                for place in places:
                    kind = os.path.splitext(listing.paths[place])[1][1:].lower()
                    _add(archive, f"{keys[place]}.{kind}", _content(listing.paths[place]))
                    _add(archive, f"{keys[place]}.cls", str(listing.labels[place]).encode())
                    advance(1)
            sync(path)
            scanned = scan_shard(path)
            yield scanned.shard, scanned.entries

    write_index(folder, listing.class_names, written())
    return len(list(folder.glob("*.tar")))


def _cut(listing: Listing[int], order: Sequence[int], shard_bytes: int) -> Iterator[list[int]]:
    """Parts of about equal size, none much above `shard_bytes`."""
    sizes = [_packed(os.stat(listing.paths[place]).st_size) for place in order]
    target = sum(sizes) / -(-sum(sizes) // shard_bytes)
    part: list[int] = []
    part_end, end = target, 0
    for place, size in zip(order, sizes, strict=True):
        if part and end + size / 2 > part_end:
            yield part
            part, part_end = [], part_end + target
        part.append(place)
        end += size
    yield part


def _packed(size: int) -> int:
    """What an image of `size` bytes and its label take in a tar file."""
    return 3 * _BLOCK + -(-size // _BLOCK) * _BLOCK


def _keys(listing: Listing[int]) -> list[str]:
    """The key of each file: its path in the split up to the first dot of its name, made unique and free of dots."""
    keys, taken, label = [], set[str](), -1
    for path, next_label in zip(listing.paths, listing.labels, strict=True):
        if next_label != label:  # keys begin with the class: those of another cannot be the same
            taken, label = set(), next_label
        folder, _, stem = os.path.splitext(relative(path, listing.root))[0].rpartition("/")
        key = wanted = f"{folder}/{stem.replace('.', '_')}"
        number = 1
        while key in taken:  # one.jpg beside one.png
            number += 1
            key = f"{wanted}-{number}"
        taken.add(key)
        keys.append(key)
    return keys


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)  # all else is fixed: equal folders give equal shards
    archive.addfile(member, BytesIO(content))


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}. Restore the file, or remove it.") from error


def _check_space(splits: dict[str, Listing[int]], output: Path) -> None:
    needed = sum(_packed(os.stat(path).st_size) for listing in splits.values() for path in listing.paths)
    free = shutil.disk_usage(output.absolute().parent).free
    if needed > free:
        raise DiskFull(
            f"The shards take {needed / 1e9:.1f} GB, but {output.absolute().parent} has {free / 1e9:.1f} GB free. "
            "Nothing was written; free some space, or write to another disk."
        )
