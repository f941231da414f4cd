"""The notebooks of examples/ are kept without outputs, and run from top to bottom."""

from pathlib import Path
from typing import Any

import fresh
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))
NAMES = {"explain", "fine_tune_and_export", "segment", "which_is_fastest_here"}
CELL_SECONDS = 900  # on a machine that does other things too; a whole notebook takes less than three minutes


def cells_of(path: Path) -> list[Any]:
    """The cells of a valid notebook."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


def test_these_are_the_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_compiles(path: Path) -> None:
    cells = cells_of(path)
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            compile(cell.source, path.name, "exec")


@pytest.mark.nightly  # each trains or measures for minutes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, fresh.ENVIRONMENT[name])
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    nbformat.write(notebook, tmp_path / path.name)  # to look at
