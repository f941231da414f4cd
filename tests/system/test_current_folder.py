"""Files that lie where a command is typed are the user's: none is imported, whatever its name."""

import subprocess
import sys
from pathlib import Path

import pytest
from fresh import ENVIRONMENT, command

NAMES = ("json", "onnx", "random", "safetensors", "tempfile", "torch", "yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files with the names of modules; each leaves a mark when it is executed."""
    for name in NAMES:
        mark = tmp_path / f"{name}.was_executed"
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n", encoding="utf-8")
    return tmp_path


def executed(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.was_executed"))


def test_no_process_of_the_library_imports_from_the_current_folder(folder: Path) -> None:
    done = subprocess.run(command("among_files"), capture_output=True, text=True, cwd=folder, env=ENVIRONMENT)
    assert done.stdout.split() == ["[2,", "4]", "answer", "works"], done.stderr
    assert executed(folder) == []


def test_a_command_does_not_import_from_the_current_folder_even_by_python_m(folder: Path) -> None:
    """What Python has imported by then, on its way to the package, is beyond our reach."""
    for name in ("random", "tempfile"):
        (folder / f"{name}.py").unlink()
    words = [sys.executable, "-m", "hybridvit", "train", "--recipes"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT)
    assert "digits" in done.stdout, done.stderr
    assert executed(folder) == []
