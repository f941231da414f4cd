"""`python -m hybridvit.timm SCRIPT`: timm's own scripts with our models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import ENVIRONMENT, PROGRAMS

SCRIPT = PROGRAMS / "timm_script.py"


def run(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
        cwd=folder,
        check=False,
    )


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [0, 1])
def test_a_script_of_timm_knows_our_models_and_its_own(workers: int, tmp_path: Path) -> None:
    script = Path(os.path.relpath(SCRIPT, tmp_path)) if sys.platform == "linux" else SCRIPT
    words = ("-m", "hybridvit.timm", script, "--workers", workers, "--model")
    ours = run(*words, "hybridvit_fastvit_debug", folder=tmp_path)
    assert ours.stdout == "hybridvit.models.fastvit.model 2000\n", ours.stderr
    assert run(*words, "test_vit", folder=tmp_path).stdout == "timm.models.vision_transformer 2000\n"


@pytest.mark.nightly
def test_by_itself_it_knows_its_own_alone(tmp_path: Path) -> None:
    alone = run(SCRIPT, "--model", "hybridvit_fastvit_debug", folder=tmp_path)
    assert "Unknown model (hybridvit_fastvit_debug)" in alone.stderr


def test_what_the_script_says_is_what_the_command_says(tmp_path: Path) -> None:
    refused = run("-m", "hybridvit.timm", SCRIPT, "--modle", "x", folder=tmp_path)
    assert refused.returncode == 2
    assert "timm_script.py: error: unrecognized arguments: --modle x" in refused.stderr


@pytest.mark.parametrize(("words", "found"), [((), "No script is given"), (("bench.py",), "'bench.py' is no file")])
def test_a_missing_script_is_named(words: tuple[str, ...], found: str, tmp_path: Path) -> None:
    refused = run("-m", "hybridvit.timm", *words, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        f"Error: {found}. Give the path of a script of timm and its options, as in 'python"
    )
