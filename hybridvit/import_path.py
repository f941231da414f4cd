"""Where processes import from: never the folder in which a command was typed, whose files are the user's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"


def leave_out_current_folder() -> None:
    """Have this process, and all that it starts, import nothing from the folder it was started in.

    A `random.py` or an `onnx.py` that lies there would be run in place of the package. For `python -m`, which puts
    that folder first; one that holds hybridvit itself, a clone that is not installed, stays.
    """
    os.environ[SAFE_PATH] = "1"
    here = Path.cwd()
    if sys.path and sys.path[0] in ("", str(here)) and not (here / "hybridvit" / "__init__.py").is_file():
        del sys.path[0]


@contextmanager
def without_current_folder() -> Iterator[None]:
    """Have the Python processes that are started meanwhile import nothing from the current folder.

    Those of multiprocessing would, before they have the path of their parent.
    """
    given = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = given
