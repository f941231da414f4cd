"""The choice between measured ways is by the headline of the task, whatever its direction and unit."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bench_results import result, row

import hybridvit
from hybridvit.cli.main import main
from hybridvit.errors import UsageError
from hybridvit.measure import choose as chooser
from hybridvit.measure.options import ChooseOptions
from hybridvit.task import TASKS

ERRORS_MM = {"near.safetensors": 0.5, "far.safetensors": 2.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two checkpoints of a task in millimetres, of which the one that errs more is twice as fast."""

    def measured(subjects: Sequence[Any], *_: object, **__: object) -> Any:
        times = {each.name: 4.0 if "near" in each.name else 2.0 for each in subjects}
        return result(*(row((time,) * 9, name, runtime="torch") for name, time in times.items()))

    monkeypatch.setitem(TASKS, "number", "number_task:Number")
    monkeypatch.setattr(chooser, "bench", measured)
    monkeypatch.setattr(chooser, "score_of", lambda path, *_: ERRORS_MM[Path(path).name])
    model = hybridvit.create_model("fastvit_debug", num_classes=1).eval()
    model.card = dataclasses.replace(model.card, task="number")
    for name in ERRORS_MM:
        hybridvit.save_checkpoint(model, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_where_lower_is_better_the_lowest_that_is_fast_enough_is_chosen(folder: Path) -> None:
    for limit, best in ((9.0, "near.safetensors"), (3.0, "far.safetensors")):
        options = ChooseOptions(models=list(ERRORS_MM), data=folder, runtime=["torch"], max_latency_ms=limit)
        chosen = chooser.choose(options).chosen
        assert chosen is not None
        assert (chosen.model, chosen.score, chosen.drop) == (best, ERRORS_MM[best], 0.0)
        assert chosen.to_dict()["error"] == ERRORS_MM[best]


def test_the_answer_speaks_in_the_unit_of_the_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", "--models", *ERRORS_MM, "--data", ".", "--runtime", "torch"]) == 0
    said = capsys.readouterr().out
    assert "mean error mm" in said
    assert "Rule: the fastest that loses at most 0.5 mm of mean error." in said
    assert "It loses +0.000 mm of mean error on these images." in said


def test_models_of_two_tasks_are_not_compared(folder: Path) -> None:
    hybridvit.save_checkpoint(hybridvit.create_model("fastvit_debug").eval(), folder / "c.safetensors")
    options = ChooseOptions(models=["near.safetensors", "c.safetensors"], data=folder, runtime=["torch"])
    with pytest.raises(UsageError, match=r"near.safetensors is judged by its mean error, c.safetensors by its top-1, "):
        chooser.choose(options)
