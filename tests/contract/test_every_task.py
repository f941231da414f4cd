"""What every task promises, whatever it learns; one more that lives in these tests alone promises it too."""

import dataclasses
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file

import hybridvit
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.tiles import Tiling
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.evaluate.agreement import agreement
from hybridvit.evaluate.run import answering, evaluate
from hybridvit.export.pipeline import export
from hybridvit.predictor import Predictor
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.recipe.recipe import Recipe
from hybridvit.scores import PICTURES_BESIDE
from hybridvit.task import TASKS, Moment, Task, find_task
from hybridvit.training.start import material_of, objective_of
from hybridvit.training.train import RunResult, train
from hybridvit.training.trial.dry_run import dry_run

NAMES = (*TASKS, "number")


@pytest.fixture(scope="module", params=NAMES)
def task(request: pytest.FixtureRequest) -> Iterator[Task]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "number", "number_task:Number")
        yield find_task(request.param)


def recipe_of(task: Task, output: Path) -> Recipe:
    settings = {
        "task": task.name,
        "data.source": "generated",
        "data.image_size": 32,
        "data.total_batch": 8,
        "data.workers": 0,
        "accelerator": "cpu",
        "output": str(output),
    }
    path = output.with_suffix(".yaml")
    path.write_text("model: fastvit_debug\n")
    recipe = load_recipe(str(path), settings)
    if task.heads:  # a small head
        recipe = dataclasses.replace(recipe, head_options=recipe.trial_settings()[0]["head_options"])
    return dataclasses.replace(
        recipe, schedule=ScheduleConfig(epochs=2, warmup_epochs=0), ema=EmaConfig(decay=0.9), save_every=0.5
    )


@pytest.fixture(scope="module")
def finished(task: Task, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    torch.set_num_threads(1)
    return train(recipe_of(task, tmp_path_factory.mktemp(task.name) / "run"), progress=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures of different sizes."""
    dice, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(3)]
    for path, size in zip(paths, ((40, 50), (64, 33), (32, 32)), strict=True):
        Image.fromarray(dice.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_recipe_is_that_of_its_task(task: Task, tmp_path: Path) -> None:
    recipe = recipe_of(task, tmp_path / "run")
    assert type(recipe) is task.recipe
    assert recipe.task == task.name


def test_the_loss_reaches_every_weight(task: Task, tmp_path: Path) -> None:
    recipe = recipe_of(task, tmp_path / "run")
    material = material_of(recipe, task)
    objective = objective_of(recipe, Fabric(accelerator="cpu", devices=1), task, material.card)
    loss = objective.loss(material.model, task.example(recipe, 8), Moment(step=0, total_steps=10, averaged=None))
    loss.backward()
    assert loss.ndim == 0
    assert [name for name, weight in material.model.named_parameters() if weight.grad is None] == []


def test_the_samples_of_a_batch_are_those_that_were_asked_for(task: Task, tmp_path: Path) -> None:
    recipe = recipe_of(task, tmp_path / "run")
    splits = task.open(recipe)
    batch = task.collate([splits.train.draw(0, number) for number in (3, 1)])
    assert batch.samples.tolist() == [3, 1]
    assert len(batch.inputs) == len(batch.frames) == 2
    again = task.open(recipe)
    assert (again.train.fingerprint, again.validation.fingerprint) == (
        splits.train.fingerprint,
        splits.validation.fingerprint,
    )
    assert torch.equal(again.train.draw(1, 2).image, splits.train.draw(1, 2).image)


def test_a_resumed_run_ends_with_the_same_bits(task: Task, finished: RunResult, tmp_path: Path) -> None:
    recipe = recipe_of(task, tmp_path / "run")
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    shutil.rmtree(newest)
    resumed = train(recipe, resume=True, progress=False)
    straight = load_file(finished.model)
    assert all(torch.equal(value, straight[name]) for name, value in load_file(resumed.model).items())
    for row, other in zip(resumed.history, finished.history, strict=True):
        assert row | {"images_per_second": 0} == other | {"images_per_second": 0}


def test_folding_changes_no_answer(finished: RunResult) -> None:
    assert finished.agreement is not None
    assert finished.agreement.num_same == finished.agreement.num_samples
    assert finished.agreement.max_difference < 1e-5


def test_the_better_weights_are_kept(task: Task, finished: RunResult) -> None:
    assert finished.averaged is not None
    better = task.headline.better
    assert not better(finished.raw, finished.best)
    assert not better(finished.averaged, finished.best)
    assert (finished.weights == "averaged") == better(finished.averaged, finished.raw)


def test_every_quantity_is_judged_and_shown_with_its_unit(task: Task, finished: RunResult) -> None:
    for quantity in task.quantities:
        assert {quantity.name, f"ema_{quantity.name}"} <= finished.history[-1].keys()
    page = finished.report.read_text(encoding="utf-8")
    assert task.headline.text(finished.best) in page
    assert f"Validation {task.headline.title}" in page
    assert "<h2>Pictures</h2>" in page


def test_a_saved_model_is_loaded_with_its_task_and_its_bits(task: Task, finished: RunResult) -> None:
    model: Any = hybridvit.load(finished.model)
    assert model.card.task == task.name
    again = finished.model.with_name("again.safetensors")
    hybridvit.save_checkpoint(model, again)
    assert again.read_bytes() == finished.model.read_bytes()


@pytest.mark.parametrize(  # by day a list of objects and a number: files of the others have tests of their own
    "task",
    [pytest.param(name, marks=() if name in ("detect", "number") else pytest.mark.nightly) for name in NAMES],
    indirect=True,
)
def test_an_exported_file_answers_as_the_checkpoint_does(
    task: Task, finished: RunResult, pictures: list[Path], tmp_path: Path
) -> None:
    model: Any = hybridvit.load(finished.model)
    written = export(model, tmp_path / "model.onnx")
    assert written.parity.passed
    predictors = Predictor(finished.model, device="cpu"), Predictor(written.path)
    answers = [predictor(pictures) for predictor in predictors]
    assert all(one.agrees(other) for one, other in zip(*answers, strict=True))
    splits = task.open(recipe_of(task, tmp_path / "run"))
    loader = make_eval_loader(splits.validation, collate=task.collate, batch_size=4)
    exported = predictors[1].runner
    with answering(model, task) as answer:
        found = agreement(answer, lambda batch: exported(batch.inputs), task, loader, model.card)
        judged = evaluate(answer, task, loader, model.card)
    loader.close()
    assert found.num_same == found.num_samples == judged.num_samples
    assert found.max_difference < 1e-5
    name = task.headline.name
    assert found.second.values[name] == pytest.approx(found.first.values[name], rel=1e-4)
    assert judged.scores.values[name] == found.first.values[name]


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is what `Result.columns` says of it."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(each, kind[0]) for each in value)
    if isinstance(kind, type):
        return isinstance(value, (int, float) if kind is float else kind)
    return all(name in kind and fits(each, kind[name]) for name, each in value.items())


def test_an_answer_can_be_told_drawn_and_compared(finished: RunResult, pictures: list[Path], tmp_path: Path) -> None:
    predictor = Predictor(finished.model, device="cpu")
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:60])
    first, bad, last = predictor([pictures[0], broken, pictures[2].read_bytes()])
    assert isinstance(bad, ImageDecodeError)
    for answer, path in ((first, pictures[0]), (last, pictures[2])):
        assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
        assert fits(answer.to_dict(), answer.columns)
        assert answer.agrees(answer)
        assert all(answer.lines())
        assert all(isinstance(content, bytes) for content in answer.files().values())
        assert {name for name in answer.files() if name.endswith(".png")} <= {*PICTURES_BESIDE}
        with Image.open(path) as picture:
            before = picture.convert("RGB").tobytes()
            drawn = answer.draw(picture.convert("RGB"))
            assert drawn.width >= picture.width
            assert drawn.height >= picture.height
            assert picture.convert("RGB").tobytes() == before
            drawn.save(io.BytesIO(), format="PNG")


def test_large_pictures_are_answered_by_tiles_or_these_are_refused(
    task: Task, finished: RunResult, pictures: list[Path]
) -> None:
    tiling = Tiling(side=32)
    if not task.joins_tiles:
        with pytest.raises(UsageError, match="answers to tiles cannot be joined"):
            Predictor(finished.model, tiling=tiling)
        with pytest.raises(UsageError, match=f"The task '{task.name}' .* answers to tiles cannot be joined"):
            task.joined((), (40, 50), hybridvit.load(finished.model).card)
        return
    by_tiles, whole = (Predictor(finished.model, device="cpu", tiling=each)(pictures) for each in (tiling, None))
    assert by_tiles[2].agrees(whole[2])  # which is one tile
    for answer, path in zip(by_tiles, pictures, strict=True):
        assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
        with Image.open(path) as picture:
            answer.draw(picture.convert("RGB"))


def test_a_dry_run_passes(task: Task, tmp_path: Path) -> None:
    said: list[str] = []
    dry_run(recipe_of(task, tmp_path / "run"), say=said.append)
    assert "passed: a resume from the first step, with the same weights to the last bit" in said
    assert any(task.headline.name in line for line in said)


def test_every_source_of_samples_has_its_opener_and_its_keys(task: Task) -> None:
    data: Any = next(field.type for field in dataclasses.fields(task.recipe) if field.name == "data")
    keys = {field.name for field in dataclasses.fields(data)}
    for source in data.sources.values():
        assert callable(source.load())
        assert keys.issuperset(source.keys)
