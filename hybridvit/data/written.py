"""Pictures that come with the package or are drawn, written out once as a data set."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.errors import DatasetError, DiskFull


def write_pictures(
    folder: str | os.PathLike[str],
    pictures: Mapping[str, np.ndarray | bytes],
    what: str,
    texts: Mapping[str, str] | None = None,
) -> bool:
    """Write pictures, as pixels or encoded, and texts by their paths into a folder; False if they are there already.

    The folder appears complete or not at all. Raises `DatasetError` if it holds something else, `DiskFull`.
    """
    folder, texts = Path(folder), texts or {}
    names = {*pictures, *texts}
    if folder.exists():
        return _keep(folder, names, f"the {len(pictures):,} {what}")
    unfinished = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        for parent in {(unfinished / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            if isinstance(picture, bytes):
                (unfinished / name).write_bytes(picture)
            else:
                Image.fromarray(picture).save(unfinished / name)
        for name, text in texts.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk is full: {folder} needs {_megabytes(pictures)} MB. Nothing was written; free some space."
            ) from error
        if folder.is_dir():  # another process was faster
            return _keep(folder, names, f"the {len(pictures):,} {what}")
        raise DatasetError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    return True


def _megabytes(pictures: Mapping[str, np.ndarray | bytes]) -> int:
    """Rounded up; small files take a block of 4 KiB each."""
    return -(-sum(max(4096, _size(picture)) for picture in pictures.values()) // 1_000_000)


def _size(picture: np.ndarray | bytes) -> int:
    return len(picture) if isinstance(picture, bytes) else picture.nbytes


def _keep(folder: Path, names: set[str], what: str) -> bool:
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if present != names:
        raise DatasetError(
            f"{folder} exists, but holds {len(present)} files that are not {what}. Choose another folder. To train on "
            "images of your own: hybridvit train folder --data.root FOLDER."
        )
    return False
