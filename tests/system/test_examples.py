"""The programs of examples/ do what they say: scaled down by their own arguments, on data that they draw themselves."""

import subprocess
import sys
from pathlib import Path

import fresh
import pytest
from saved_models import debug_model

from hybridvit import save_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "classify": ("--epochs", "1"),
    "multilabel": ("--epochs", "1"),
    "segment": ("--epochs", "1", "--scenes", "40"),
    "detect": ("--epochs", "1", "--scenes", "16"),
    "hand": ("--epochs", "1", "--hands", "16"),
    "deploy": ("--model", "runs/example-deploy/model.safetensors", "--to", "onnx"),
    "measure": ("fastvit_debug", "fastervit_debug", "--runtimes", "torch", "--rounds", "8", "--chart", "chart.html"),
}
LEFT = {  # the run and the files that each is about, among what it leaves
    "classify": ("runs/example-classify/model.onnx", "runs/example-classify/report.html"),
    "multilabel": ("runs/example-multilabel/model.safetensors",),
    "segment": ("runs/example-segment/model.safetensors", "runs/example-segment/drawn"),
    "detect": ("runs/example-detect/model.safetensors", "runs/example-detect/drawn"),
    "hand": ("runs/example-hand/model.safetensors", "runs/example-hand/meshes/hands.html"),
    "deploy": ("runs/example-deploy/model.onnx",),
    "measure": ("chart.html",),
}
MOST_LINES = 60


def run(name: str, words: tuple[str, ...], folder: Path) -> str:
    """What the program prints, started in a folder."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=fresh.ENVIRONMENT,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_program_is_tested_and_read_at_a_glance() -> None:
    programs = {path.stem: path.read_text(encoding="utf-8").count("\n") for path in EXAMPLES.glob("*.py")}
    assert set(programs) == set(SMALL)
    assert all(lines <= MOST_LINES for lines in programs.values()), programs


@pytest.mark.parametrize("name", SMALL)
def test_an_example_leaves_what_it_is_about(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "example-deploy").mkdir(parents=True)
    save_checkpoint(debug_model(image_size=64), tmp_path / "runs" / "example-deploy" / "model.safetensors")
    said = run(name, SMALL[name], tmp_path)
    assert said.count("\n") >= 2
    for left in LEFT[name]:
        assert (tmp_path / left).exists()


@pytest.mark.nightly  # by day with fewer pictures
@pytest.mark.parametrize("name", SMALL)
def test_an_example_works_as_it_is_typed(name: str, tmp_path: Path) -> None:
    run(name, (), tmp_path)
    for left in LEFT[name]:
        assert name == "measure" or (tmp_path / left).exists()
