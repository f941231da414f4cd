"""Every error text that the tests meet, in a list to be read in a row: HYBRIDVIT_ERROR_TEXTS names its file.

A line for each place that raises: the first text from there. Processes of a run append to one file, so that a place may
have a line of each.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hybridvit
from hybridvit.errors import HybridViTError
from hybridvit.serve.refusals import Refusal

VARIABLE = "HYBRIDVIT_ERROR_TEXTS"
PACKAGE = Path(hybridvit.__file__).parent


@contextmanager
def recorded() -> Iterator[None]:
    """Append what is raised in a block to the file that the environment names, if it does."""
    path = os.environ.get(VARIABLE)
    if not path:
        yield
        return
    found: dict[tuple[str, str], str] = {}
    with _watched(HybridViTError, found), _watched(Refusal, found):
        yield
    lines = [f"{place}  {kind}: {text}\n" for (place, kind), text in sorted(found.items())]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(lines))


@contextmanager
def _watched(base: type[Exception], found: dict[tuple[str, str], str]) -> Iterator[None]:
    """Keep the first text of each place that makes an error of that kind."""
    own = base.__init__

    def made(self: Exception, *words: object) -> None:
        own(self, *words)
        if words and (place := _place()):
            found.setdefault((place, type(self).__name__), " ".join(str(words[0]).splitlines()))

    base.__init__ = made  # type: ignore[method-assign]
    try:
        yield
    finally:
        base.__init__ = own  # type: ignore[method-assign]


def _place() -> str:
    """The file and line in the package that makes the error; empty where a test makes it."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__init__":
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    return f"{path.relative_to(PACKAGE)}:{frame.f_lineno}" if path.is_relative_to(PACKAGE) else ""
