"""Tar files, read member by member: nothing is unpacked, and no list of the members is kept."""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridvit.errors import DatasetError


@contextmanager
def open_tar(path: str | os.PathLike[str], name: str | Path) -> Iterator[tarfile.TarFile]:
    """An uncompressed tar file; messages call it `name`. Raises DatasetError for damage, here or once it is read."""
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DatasetError(f"{name} is no whole tar file: {error}. Fetch or write it again.") from error


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in their order; tarfile itself would keep all of them."""
    for member in archive:
        archive.members.clear()  # type: ignore[attr-defined]  # not in the stub
        yield member
