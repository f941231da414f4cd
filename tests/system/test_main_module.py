"""A script that trains, measures or loads at its top level does so once, and is told what it lacks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
from fresh import ENVIRONMENT, command
from programs import children
from tiny_runs import TINY
from torch.utils.data import DataLoader

import hybridvit
from hybridvit.child import in_child
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.processes import in_processes
from hybridvit.errors import DatasetError, UsageError
from hybridvit.export.apart import ExportJob, run_apart
from hybridvit.main_module import REFUSED, refuse_at_import
from hybridvit.measure.choose import choose

SAID = (
    "The top level of {} runs again in each process that it starts, and a call there was refused in one of them: put "
    'that call under `if __name__ == "__main__":`.'
)
IMAGES = GeneratedImages(length=10)
WHAT_BEGINS_SOMETHING = {
    "train": lambda: hybridvit.train(TINY),
    "dry_run": lambda: hybridvit.dry_run(TINY),
    "bench": lambda: hybridvit.bench("fastvit_debug"),
    "choose": choose,
    "export": lambda: run_apart(ExportJob(checkpoint="m.safetensors", output="m.onnx", to="onnx")),
    "check": lambda: list(in_processes(str, ["one"], workers=1, lost=str)),
    "load": lambda: iter(make_eval_loader(IMAGES, batch_size=4, workers=1)),
}


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("start_method", ["spawn", pytest.param("forkserver", marks=pytest.mark.nightly)])
def test_a_script_that_is_not_ready_for_processes_ends_with_the_reason(start_method: str) -> None:
    """And does not wait for ever for a process that is gone before it has read all that it is sent."""
    done = subprocess.run(
        command("unguarded", start_method), capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False
    )
    said = SAID.format("unguarded.py")
    assert set(done.stdout.splitlines()) == {"begins", f"UsageError: {said}"}
    assert set(done.stderr.splitlines()) == {f"Error: {said}"}


@pytest.mark.parametrize("what", WHAT_BEGINS_SOMETHING)
def test_nothing_begins_while_a_process_imports_the_main_module_of_its_parent(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(code: int) -> NoReturn:
        raise Ended(code)

    script = ModuleType("__mp_main__")
    script.__file__ = str(Path("somewhere", "mine.py"))
    monkeypatch.setitem(sys.modules, "__mp_main__", script)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended, match=str(REFUSED)):
        WHAT_BEGINS_SOMETHING[what]()
    assert capsys.readouterr().err == f"Error: {SAID.format('mine.py')}\n"


def test_a_main_module_that_is_imported_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules["__main__"])
    refuse_at_import()
    loader = make_eval_loader(IMAGES, batch_size=4, workers=1)
    next(iter(loader))
    loader.close()


@pytest.mark.parametrize(
    "work",
    [lambda: in_child(children.refused), lambda: list(in_processes(children.refused, [1, 2], workers=1, lost=str))],
)
def test_the_parent_says_what_was_refused_in_its_child(work: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r'runs again in each process .* under `if __name__ == "__main__":`\.'):
        work()


def test_a_server_of_forks_that_dies_of_it_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Python 3.14, which imports the main module itself and leaves no exit code."""

    def start(loader: object) -> NoReturn:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(DataLoader, "__iter__", start)
    with pytest.raises(DatasetError, match=r"ended as it started: unexpected EOF\..*The top level of .* runs again"):
        iter(make_eval_loader(IMAGES, batch_size=4, workers=1))
