"""Find the samples in tar files of WebDataset's layout: members of one name, such as 7.jpg and 7.cls, side by side.

Nothing is unpacked, and names are only compared, so a hostile archive can at worst be refused.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from hybridvit.data.file_kind import image_endings
from hybridvit.data.scan import LeftOut
from hybridvit.data.shards.index import INDEX, Entry, Shard, read_head, write_index
from hybridvit.data.shards.tar import members_of, open_tar
from hybridvit.digest import sha256_of
from hybridvit.errors import DatasetError, UsageError, plural

_MOST_LABEL_BYTES = 1 << 20  # of a .json beside an image
_MOST_CLASSES = 1_000_000
LABEL_KEY = "label"  # in <key>.json


class Scanned(NamedTuple):
    """What is in one tar file."""

    shard: Shard
    entries: list[Entry]
    left_out: LeftOut  # members of samples without an image
    num_without_image: int  # samples
    num_by_key: int  # samples whose label is in <key>.json


def index_folder(
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    label_key: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Write the index of folder/*.tar beside them; the number of samples.

    A label is the integer in <key>.cls, or without that file the value of `label_key` ("label" if None) in <key>.json;
    with `class_names` also a name. Without, the classes are named as in the index that is there, or by their numbers.
    `say` is told of what is left out.

    Raises `DatasetError` for a folder without tar files, an archive that is damaged, compressed or without images, and
    a label that is absent or unusable; `UsageError` for a `label_key` that no sample has a use for.
    """
    folder = Path(folder)
    if class_names is None and (folder / INDEX).is_file():
        text = (folder / INDEX).read_text(encoding="utf-8", errors="replace")
        class_names = read_head(text, str(folder / INDEX))["class_names"]
        say(f"kept: the class names of {folder / INDEX}")
    paths = sorted(
        (path for path in _entries(folder) if path.suffix == ".tar"), key=lambda path: os.fsencode(path.name)
    )
    if not paths:
        packed = [path.name for path in _entries(folder) if ".tar." in path.name or path.suffix == ".tgz"]
        hint = (
            f"{packed[0]} is compressed; unpack it to .tar, for its images are packed already"
            if packed
            else ("Give the folder that holds them; to make them from an image folder: hybridvit shard SOURCE OUTPUT")
        )
        raise DatasetError(f"{folder} has no .tar files. {hint}.")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        scanned = list(pool.map(lambda path: scan_shard(path, class_names, label_key or LABEL_KEY), paths))
    if label_key is not None and not any(each.num_by_key for each in scanned):
        raise UsageError(
            f"--label is '{label_key}', a key of <key>.json, but every sample in {folder} has its class in <key>.cls, "
            "which comes first. Leave --label out, or pack the samples without .cls."
        )
    if without_image := sum(each.num_without_image for each in scanned):
        advice = "".join(dict.fromkeys(each.left_out.advice for each in scanned))
        say(f"left out: {plural(without_image, 'sample')} without an image, of {folder}{advice}")
    names = class_names or _numbers(each.entries for each in scanned)
    return write_index(folder, names, [(each.shard, each.entries) for each in scanned])


def scan_shard(path: Path, class_names: Sequence[str] | None = None, label_key: str = LABEL_KEY) -> Scanned:
    """One tar file. Raises as `index_folder`."""
    labels = {name: label for label, name in enumerate(class_names)} if class_names else None
    entries: list[Entry] = []
    num_without_image, num_by_key, left_out = 0, 0, LeftOut()
    with open_tar(path, path) as archive:
        for key, members in _samples(archive):
            kinds = [kind for kind in members if f".{kind.lower()}" in image_endings()]
            if len(kinds) > 1:
                raise DatasetError(
                    f"{path} has {len(kinds)} images under the key '{key}' ({', '.join(kinds)}), and which of "
                    "them is meant is unknown. Keep one per key."
                )
            if not kinds:
                num_without_image += 1
                left_out.endings.update(f".{kind.lower()}" for kind in members)
                continue
            num_by_key += "cls" not in members
            image = members[kinds[0]]
            label = _label(archive, path, key, members, label_key, labels)
            entries.append(Entry(key=key, kind=kinds[0], offset=image.offset_data, length=image.size, label=label))
    if not entries:
        known = " ".join(sorted(image_endings()))
        raise DatasetError(f"{path} has no images: no member there ends in one of {known}{left_out.advice}.")
    if class_names and (beyond := max(entry.label for entry in entries)) >= len(class_names):
        raise DatasetError(
            f"{path} has an image of class {beyond}, but {len(class_names)} class names are given, for 0 to "
            f"{len(class_names) - 1}. Give the names of all classes."
        )
    shard = Shard(name=path.name, num_bytes=path.stat().st_size, sha256=sha256_of(path), num_samples=len(entries))
    return Scanned(shard, entries, left_out, num_without_image, num_by_key)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"Cannot read the folder {folder}: {error.strerror}. Check the path.") from error


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key -> {what follows the first dot of the file name: member}, for members that stand together."""
    current, members = "", dict[str, tarfile.TarInfo]()
    for member in members_of(archive):
        if not member.isreg() or member.issparse():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, dot, kind = name.partition(".")
        if not dot or not stem:
            continue
        key = f"{folder}{slash}{stem}"
        if key != current or kind in members:
            if members:
                yield current, members
            current, members = key, {}
        members[kind] = member
    if members:
        yield current, members


def _label(
    archive: tarfile.TarFile,
    path: Path,
    key: str,
    members: Mapping[str, tarfile.TarInfo],
    label_key: str,
    labels: Mapping[str, int] | None,
) -> int:
    kind = next((kind for kind in ("cls", "json") if kind in members), None)
    if kind is None:
        raise DatasetError(
            f"{path} has an image without a label: '{key}' has neither .cls nor .json beside it (it has "
            f"{', '.join(members)}). Add the class number as {key}.cls."
        )
    file = archive.extractfile(members[kind])
    text = file.read(_MOST_LABEL_BYTES) if file is not None else b""
    try:
        value = json.loads(text)[label_key] if kind == "json" else text.decode().strip()
        label = _number(value, labels)
    except (ValueError, KeyError, TypeError) as error:
        where = f" under '{label_key}'" if kind == "json" else ""
        raise DatasetError(
            f"{path}: '{key}.{kind}' begins with {text[:40]!r}, but it must hold a class number{where}. Where the "
            "number has another key, name it with --label KEY; where classes are given by name, list the names with "
            "--classes FILE."
        ) from error
    if not 0 <= label < _MOST_CLASSES:
        raise DatasetError(
            f"{path}: the label of '{key}' is {label}, but classes are numbered from 0 to {_MOST_CLASSES - 1:,}."
        )
    return label


def _number(value: object, labels: Mapping[str, int] | None) -> int:
    """A class given by number, also as text, or by name; a name that is a number is a number."""
    try:
        return int(str(value))
    except ValueError:
        if labels is None or not isinstance(value, str):
            raise
        return labels[value]


def _numbers(scanned: Iterator[Sequence[Entry]]) -> list[str]:
    return [str(label) for label in range(1 + max(entry.label for entries in scanned for entry in entries))]
