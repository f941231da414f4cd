"""How far a command is, on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hybridvit.stderr import remark


@contextmanager
def status_line(*, in_logs: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text in one line of the terminal; the line is gone at the end.

    Elsewhere each text is a line of its own if `in_logs`, else nothing is written. The terminal is written to in calls
    alone: a thread that redrew the line would disturb what is measured.
    """
    if not sys.stderr.isatty():
        yield lambda text: remark(text) if in_logs else None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False) as live:
        try:
            yield lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        finally:
            live.update(Text())  # rich writes what is there once more before it takes it away
