"""Pictures that come with the package or are drawn, written out once as a data set."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.errors import DatasetError, DiskFull

_BLOCK = 4096  # bytes that a small file takes on a disk


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
    try:
        with appearing(folder, needed_bytes=sum(max(_BLOCK, _size(picture)) for picture in pictures.values())) as made:
            for parent in {(made / name).parent for name in names}:
                parent.mkdir(parents=True, exist_ok=True)
            for name, picture in pictures.items():
                if isinstance(picture, bytes):
                    (made / name).write_bytes(picture)
                else:
                    Image.fromarray(picture).save(made / name)
            for name, text in texts.items():
                (made / name).write_text(text, encoding="utf-8")
    except DatasetError:
        if not folder.is_dir():
            raise
        return _keep(folder, names, f"the {len(pictures):,} {what}")  # another process was faster
    return True


@contextmanager
def appearing(folder: Path, *, needed_bytes: int) -> Iterator[Path]:
    """Yield a folder to fill, which takes the name `folder` at the end; on an exception nothing is left of it.

    Raises DiskFull, with about how much was needed, and DatasetError if `folder` cannot be written or is there by then.
    """
    unfinished = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk is full: {folder} needs {-(-needed_bytes // 1_000_000)} MB. Nothing was written; free some "
                "space."
            ) from error
        raise DatasetError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
