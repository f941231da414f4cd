"""Run the cells of a table, each in a plain process of its own: what is finished is skipped, what is broken goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hybridvit.ablate.cells import FAILURE, RESULT, Cell
from hybridvit.atomic import write_text
from hybridvit.errors import DiskFull, UsageError, command_line
from hybridvit.machine.facts import usable_cores
from hybridvit.recipe.file import RECIPE, recipe_text

LOG = "log.txt"
PROGRAM = "hybridvit.ablate.train_cell"


def run_cells(cells: Sequence[Cell], *, jobs: int = 1, say: Callable[[str], None] = lambda _: None) -> None:
    """Finish every cell that is not, `jobs` at a time, each with an equal part of this process's cores.

    A cell that fails leaves its message in its folder, and the rest go on; the next run tries it again. On Ctrl-C the
    cells that run save and end, as they get the signal too. Raises UsageError for a number of jobs that is none,
    DiskFull where the lab cannot be written.
    """
    if jobs < 1:
        raise UsageError(f"--jobs is {jobs}, but at least one cell runs at a time. Use 1 or more.")
    prepare(cells)
    left = [cell for cell in cells if cell.result() is None]
    say(f"{len(cells) - len(left)} of {len(cells)} cells are finished; {len(left)} to run.")
    threads = max(1, usable_cores() // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        for cell in pool.map(lambda cell: _run(cell, threads), left):
            found, failure = cell.result(), cell.failure()
            what = f"{found['metric']} {found['value']:.2f}" if found else f"failed: {failure}"
            say(f"{cell.row}, seed {cell.seed}: {what}")


def prepare(cells: Sequence[Cell]) -> None:
    """Write each cell's recipe into its folder. Raises DiskFull."""
    try:
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            if not (cell.folder / RECIPE).is_file():
                write_text(cell.folder / RECIPE, recipe_text(cell.recipe))
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise DiskFull(
            f"The lab's folder {error.filename} could not be made ({error.strerror}). Choose another."
        ) from (error)


def command_of(cell: Cell) -> str:
    """The line that runs one cell by itself."""
    return command_line(sys.executable, "-m", PROGRAM, cell.folder)


def _run(cell: Cell, threads: int) -> Cell:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", PROGRAM, str(cell.folder)]
    with (cell.folder / LOG).open("wb") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if (cell.folder / RESULT).is_file():
        (cell.folder / FAILURE).unlink(missing_ok=True)
    else:
        write_text(cell.folder / FAILURE, json.dumps({"code": code, "message": _last_line(cell.folder / LOG)}) + "\n")
    return cell


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its process ended without a word"
