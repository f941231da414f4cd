"""Start a program of tests/programs in a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
PROGRAMS = TESTS / "programs"
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")))),
    "OMP_NUM_THREADS": "1",
}


def command(program: str, *words: object) -> list[str]:
    """The words that start `program`, a file's name without its suffix."""
    return [sys.executable, str(PROGRAMS / f"{program}.py"), *map(str, words)]


def output_of(program: str, *words: object, timeout: float = 120) -> str:
    """What the program prints; it has to end with 0."""
    done = subprocess.run(
        command(program, *words), capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip()
