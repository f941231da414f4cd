"""The digest of `seal` for a format that is a folder: over the names and contents of all its files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from hybridvit.errors import CheckpointError
from hybridvit.export.seal import KEY, OPEN


def seal_folder(folder: Path, holder: Path) -> None:
    """Put the digest in the place of the zeros that `annotate` wrote under KEY into `holder`, a file of `folder`."""
    content = holder.read_bytes()
    assert content.count(OPEN.encode()) == 1, f"{holder} has no one place for its digest"
    holder.write_bytes(content.replace(OPEN.encode(), _digest(folder, OPEN).encode()))


def check_folder_seal(folder: Path, metadata: Mapping[str, str]) -> None:
    """Raise CheckpointError if the files of `folder` are not those that were sealed."""
    digest = metadata.get(KEY, "")
    if len(digest) != 64 or _digest(folder, digest) != digest:
        raise CheckpointError(
            f"{folder} is damaged or was changed: its files are not those of its digest. Copy the whole folder anew, "
            "or export it again."
        )


def _digest(folder: Path, digest: str) -> str:
    """The digest of all files, in which zeros stand for `digest`."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes().replace(digest.encode(), OPEN.encode())
        total.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
