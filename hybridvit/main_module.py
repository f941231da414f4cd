"""Calls at the top level of a script, which runs again in each process that is started anew (spawn, forkserver).

Such a process imports the script before it does what it is for. A training that begins there would begin once more in
each of them, so whatever trains, measures or starts processes ends the process instead, with an exit code by which its
parent knows why.
"""

import os
import sys
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

from hybridvit.errors import UsageError
from hybridvit.stderr import remark

REFUSED = 64  # the exit code; sysexits.h has it for a command that was used wrongly
MAIN, MAIN_OF_PARENT = "__main__", "__mp_main__"


def refuse_at_import() -> None:
    """End this process, with a sentence on stderr, where it is still importing the main module of its parent.

    Not by an exception: a fork server makes the same exit code of all. multiprocessing names the module __mp_main__,
    and puts it in the place of __main__ once it is imported.
    """
    imported = sys.modules.get(MAIN_OF_PARENT)
    if imported is None or imported is sys.modules[MAIN]:
        return
    remark(f"Error: {runs_again()}")
    sys.stdout.flush()
    os._exit(REFUSED)


def refused(processes: Iterable[BaseProcess]) -> UsageError | None:
    """The explanation where one of the processes was ended by `refuse_at_import`; None where none was."""
    return runs_again() if any(process.exitcode == REFUSED for process in processes) else None


def runs_again() -> UsageError:
    """What happened, and the fix; the same in the process that was ended and in its parent."""
    file = getattr(sys.modules.get(MAIN_OF_PARENT, sys.modules[MAIN]), "__file__", None)
    return UsageError(
        f"The top level of {Path(file).name if file else 'this script'} runs again in each process that it starts, and "
        'a call there was refused in one of them: put that call under `if __name__ == "__main__":`.'
    )
