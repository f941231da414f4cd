"""Some files cannot be opened: Python imports this at its start where the folder is on PYTHONPATH.

A file whose name begins with "kills" ends the process, as a fault in a decoder's C code does; one with "stuck" never
opens; one with "slow" takes a tenth of a second.
"""

import os
import signal
import sys
import time


def _opened(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open":
        return
    name = os.path.basename(str(arguments[0]))
    if name.startswith("kills"):
        os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    elif name.startswith("stuck"):
        time.sleep(600)
    elif name.startswith("slow"):
        time.sleep(0.1)


sys.addaudithook(_opened)
