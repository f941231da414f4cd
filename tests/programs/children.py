"""What processes of their own do in tests, in place of the work that they are for."""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from hybridvit.export.apart import ExportJob
from hybridvit.export.draft import PROVING
from hybridvit.main_module import REFUSED


def killed(*_: object) -> None:
    """As by the kernel when memory runs out."""
    os.kill(os.getpid(), 9)


def dead_by_a_fault_after_half_an_export(job: ExportJob) -> None:
    """Leaves what a converter that dies leaves."""
    print("half way", flush=True)
    Path(job.output).with_name(".m.tmp-1234.onnx").touch()
    Path(job.output).with_name(".m.tmp-1.mlpackage").mkdir()
    os.kill(os.getpid(), signal.SIGSEGV)


def dead_by_a_fault_while_it_proves(job: ExportJob) -> None:
    """As a runtime that cannot run what was written."""
    print(PROVING, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def ended_with_3(*_: object) -> NoReturn:
    """As a library that gives up on its own."""
    os.write(1, b"half way\n")
    os.write(2, b"gone\n")
    os._exit(3)


def refused(*_: object) -> NoReturn:
    """As where the script of the parent calls at its top level."""
    os._exit(REFUSED)


def stumbling(*_: object) -> None:
    """As a library that raises what nobody expects."""
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr)
    raise RuntimeError("stumbled")
