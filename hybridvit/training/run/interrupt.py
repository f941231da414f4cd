"""Signals: the first asks the loop to save and stop, the second ends the process at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar may have hidden it


class Stopped(SystemExit):
    """Training was asked to stop, and has saved. Ends the process with 143 (SIGTERM) or 130 (SIGINT)."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(128 + signum)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopRequest:
    """While entered, the first SIGTERM or SIGINT sets `signum`; nothing else happens until the loop looks at it.

    Outside the main thread, where Python installs no handlers, it stays quiet.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def ask(self, signum: int) -> None:
        """What the first signal does, from within the process."""
        self.signum = self.signum or signum

    def _receive(self, signum: int, _: FrameType | None) -> None:
        if self.signum:
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
            os._exit(128 + signum)
        self.signum = signum
