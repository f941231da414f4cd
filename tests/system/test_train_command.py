"""`hybridvit train`: what its words name."""

from pathlib import Path

import pytest

from hybridvit.cli import main
from hybridvit.errors import UsageError
from hybridvit.recipe.file import load_recipe, recipe_text
from hybridvit.recipe.recipe import Recipe


def test_a_run_goes_on_by_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Recipe, object]] = []

    def trained(recipe: Recipe, *, resume: object, **_: object) -> None:
        asked.append((recipe, resume))
        raise UsageError("enough")

    monkeypatch.setattr("hybridvit.training.train.train", trained)
    run = tmp_path / "my run"
    run.mkdir()
    assert main(["train", str(run), "--resume"]) == 2  # no run
    recipe = load_recipe("digits", {"output": "elsewhere", "seed": 3})
    (run / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    assert main(["train", str(run)]) == 2  # go on, or anew?
    assert not asked
    assert main(["train", str(run), "--resume", "--data.workers", "1"]) == 2
    ((found, resume),) = asked
    assert resume is True
    assert (found.seed, found.output, found.data.workers) == (3, str(run), 1)
