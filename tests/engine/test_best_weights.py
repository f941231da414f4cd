"""The weights of the best validation are kept, whatever comes after it and however often the run is stopped."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import LOSSES_PER_STEP, TINY, Interruption, TinyTask, assert_same_bits

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.recipe.groups import ScheduleConfig
from hybridvit.recipe.recipe import Recipe
from hybridvit.scores import Scores
from hybridvit.task import Metric, Outputs
from hybridvit.training.run.snapshot import read_snapshot, save_snapshot
from hybridvit.training.train import RunResult, train

TOP1 = {3: (10.0, 20.0), 6: (60.0, 50.0), 9: (30.0, 40.0), 12: (60.0, 55.0)}  # by step: raw, averaged
BEST, LAST = 6, 12


class Judged(TinyTask):
    """Its validations come out as TOP1 says."""

    step = 0  # of the last loss
    passes = 0  # over the validation samples after it

    def loss(self, *args: Any) -> Any:
        self.step, self.passes = args[-1].step + 1, 0
        return super().loss(*args)

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        return _Said(super().metric(card, num_examples=num_examples), self)


class _Said(Metric):
    def __init__(self, metric: Metric, task: Judged) -> None:
        self._metric, self._task = metric, task

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._metric.update(outputs, batch)

    def compute(self) -> Scores:
        scores, task = self._metric.compute(), self._task
        task.passes += 1
        if task.passes > 2 or not task.step:  # the comparison with the folded model, at the end
            return scores
        return dataclasses.replace(scores, values=scores.values | {"top1": TOP1[task.step][task.passes - 1]})


def judged(folder: Path, *, stop_before: int = 0, resume: bool = False, **changes: Any) -> RunResult:
    recipe = dataclasses.replace(
        TINY, output=str(folder), keep=9, schedule=ScheduleConfig(epochs=4, warmup_epochs=1), **changes
    )

    def disturb(what: str, count: int) -> None:
        if stop_before and what == "loss" and count == stop_before * LOSSES_PER_STEP:
            raise Interruption

    return train(recipe, resume=resume, progress=False, task=Judged(disturb))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    torch.set_num_threads(1)
    return judged(tmp_path_factory.mktemp("best") / "run", save_every=1.0)


def snapshot_of(run: RunResult, step: int) -> dict[str, Any]:
    return read_snapshot(run.folder / "checkpoints" / f"step-{step:09d}")


def test_the_model_file_holds_the_best_validations_weights_and_the_last_ones_are_beside_it(finished: RunResult) -> None:
    assert_same_bits(load_file(finished.model), snapshot_of(finished, BEST)["model"])
    assert_same_bits(load_file(finished.last), snapshot_of(finished, LAST)["model"])
    assert (finished.weights, finished.step, finished.epoch) == ("raw", BEST, 2.0)


def test_best_means_the_same_everywhere(finished: RunResult) -> None:
    assert (finished.best, finished.raw, finished.averaged) == (60.0, 60.0, 50.0)
    assert finished.summary()[0].startswith("top1 of epoch 2, the best validation: raw 60.00 %   averaged 50.00 %")
    said = json.loads((finished.folder / "result.json").read_text(encoding="utf-8"))
    assert (said["best"], said["step"], said["weights"]) == (60.0, BEST, "raw")
    assert finished.content is not None
    tiles = {figure.label: (figure.value, figure.note) for figure in finished.content.figures}
    assert tiles["Validation top-1"][0] == "60.00 %"
    assert tiles["Best epoch"] == ("2", "after epoch 4: 60.00 %, raw weights")
    assert finished.content.results is not None
    assert finished.content.results.rows[0][:2] == ["raw", "60.00"]
    assert "raw weights of epoch 2, the best on these images" in finished.content.results.note


@pytest.mark.parametrize("stop_before", [7, *(pytest.param(step, marks=pytest.mark.nightly) for step in (5, 8))])
def test_the_best_weights_outlive_a_kill(finished: RunResult, tmp_path: Path, stop_before: int) -> None:
    with pytest.raises(Interruption):
        judged(tmp_path / "run", stop_before=stop_before)  # checkpoints after every second step
    resumed = judged(tmp_path / "run", resume=True)
    for file, straight in ((resumed.model, finished.model), (resumed.last, finished.last)):
        assert_same_bits(load_file(file), load_file(straight))
    assert (resumed.best, resumed.step) == (finished.best, finished.step)


def test_a_run_ends_early_after_as_many_validations_as_the_recipe_waits(tmp_path: Path) -> None:
    result = judged(tmp_path / "run", early_stop=1)
    assert [row["step"] for row in result.history] == [3, 6, 9]
    assert (result.step, result.best) == (BEST, 60.0)
    events = (result.folder / "events.jsonl").read_text(encoding="utf-8")
    assert "Ended early: the last 1 validations were not better than the best." in events
    assert result.content is not None
    assert result.content.lead.startswith("Finished: 9 steps in ")
    assert result.content.lead.endswith("of 12: it ended early.")
    again = judged(tmp_path / "run", early_stop=1, resume=True)
    assert again.history == result.history


def test_a_run_of_an_earlier_version_goes_on_and_keeps_the_best_from_there(finished: RunResult, tmp_path: Path) -> None:
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    checkpoints = folder / "checkpoints"
    state = snapshot_of(finished, 9)
    shutil.rmtree(checkpoints)
    del state["best"], state["position"]["best"]
    save_snapshot(checkpoints, 9, state, keep=1)
    resumed = judged(folder, resume=True, save_every=1.0)
    assert (resumed.step, resumed.best) == (LAST, 60.0)  # step 6 was as good, but its weights are gone
    assert_same_bits(load_file(resumed.model), load_file(resumed.last))


def test_a_recipe_waits_for_no_negative_number_of_validations() -> None:
    with pytest.raises(ValueError, match="'early_stop' is -1, but it must be at least 0: 0 stands for never"):
        Recipe(model="fastvit_debug", dry_run=True, early_stop=-1)
