"""Put what an exporter writes in place: a file or a folder, with those that belong to it."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hybridvit.atomic import TEMPORARY, check_writable, not_writable, replacing, sync
from hybridvit.errors import UsageError


@contextmanager
def replacing_with(path: Path, companions: Callable[[Path], Sequence[Path]], *, is_folder: bool) -> Iterator[Path]:
    """`hybridvit.atomic.replacing` for a file, or a folder, and its companions.

    The exporter writes them all beside the temporary path. They take their places one after the other, `path` the last;
    a power cut between them leaves files that do not belong together, which the exporter's runner has to notice.
    """
    replace_main = _replacing_folder if is_folder else replacing
    with replace_main(path) as temporary, ExitStack() as stack:
        written = companions(temporary)
        places = [stack.enter_context(replacing(place)) for place in companions(path)]
        try:
            yield temporary
            for source, place in zip(written, places, strict=True):
                os.replace(source, place)
        finally:
            for source in written:
                source.unlink(missing_ok=True)


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """A folder in place of another of its kind; for an instant between two renames there is none."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, but a folder is to be written there. Give another name.")
    check_writable(path, is_folder=True)
    mark = f"{TEMPORARY}{secrets.token_hex(4)}"
    temporary, old = (path.with_name(f".{path.stem}{kind}{mark}{path.suffix}") for kind in ("", ".old"))
    try:
        yield temporary
        for inside in (*temporary.rglob("*"), temporary):
            sync(inside)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        sync(path.parent)
    except PermissionError as error:
        raise not_writable(path, error) from error
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
