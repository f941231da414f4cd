"""A digest of a file inside that file, so that a damaged one is told from a sound one in any format.

The 64 digits are computed over the file with zeros in their place. No parser is needed for that, and no place outside
the file: most runtimes run a model with flipped weights without a word.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hybridvit.errors import CheckpointError

_log = logging.getLogger(__name__)

KEY = "hybridvit.sha256"
OPEN = "0" * 64
"""What stands in the metadata of a file that is not sealed yet."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What is opened besides files that are as `export` wrote them."""

    changed: bool = False  # by their owner, on purpose
    foreign: bool = False  # written by others, where a target can tell what they take: for their time alone


NOTHING_ELSE = Trust()


@contextmanager
def as_written(path: Path, trust: Trust) -> Iterator[None]:
    """Within the block a CheckpointError says that `path` is not as it was written; trusted, it is only logged."""
    try:
        yield
    except CheckpointError as error:
        if not trust.changed:
            raise CheckpointError(
                f"{error} If you changed it on purpose, --trust_changed (trust_changed=True) takes it as it is."
            ) from error
        _log.warning("%s is not as it was exported: what was proven of it then says nothing of it now.", path)


def seal(path: Path, holder: Path) -> None:
    """Put the digest of `path` in the place of the zeros that `annotate` wrote under KEY.

    They are in `holder`: the same file, or if `path` is a folder, one inside it.
    """
    content = holder.read_bytes()
    assert content.count(OPEN.encode()) == 1, f"{holder} has no one place for its digest"
    digest = _of_folder(path, OPEN) if path.is_dir() else hashlib.sha256(content).hexdigest()
    holder.write_bytes(content.replace(OPEN.encode(), digest.encode()))


def check_seal(content: bytes, metadata: Mapping[str, str], path: Path) -> None:
    """Raise CheckpointError if `content` of the file at `path` is not what was sealed."""
    digest = metadata.get(KEY, "")
    if len(digest) == 64 and content.count(digest.encode()) == 1:
        found = hashlib.sha256(content.replace(digest.encode(), OPEN.encode())).hexdigest()
        if found == digest:
            return
    raise CheckpointError(
        f"{path} is damaged or was changed: its content is not that of its digest. Copy it anew, or export it again."
    )


def check_folder_seal(folder: Path, metadata: Mapping[str, str]) -> None:
    """Raise CheckpointError if the files of `folder` are not those that were sealed."""
    digest = metadata.get(KEY, "")
    if len(digest) != 64 or _of_folder(folder, digest) != digest:
        raise CheckpointError(
            f"{folder} is damaged or was changed: its files are not those of its digest. Copy the whole folder anew, "
            "or export it again."
        )


def _of_folder(folder: Path, digest: str) -> str:
    """The digest of all files, in which zeros stand for `digest`."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes().replace(digest.encode(), OPEN.encode())
        total.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
