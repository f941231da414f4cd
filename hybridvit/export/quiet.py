"""Keeping back what converters and runtimes tell about themselves; their exceptions always come through.

What is redirected belongs to the whole process, so one thread at a time does it: two that overlap would put back each
other's.
"""

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_ONE_THREAD = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log records below errors, nothing printed by Python code: progress bars above all."""
    with _ONE_THREAD, warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable(max(disabled, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(disabled)


@contextmanager
def quiet_native() -> Iterator[None]:
    """Nothing reaches descriptor 2, to which native code writes, with no setting against it."""
    with _ONE_THREAD:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
