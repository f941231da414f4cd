"""Micro-batches found by trying, and what happens where memory does not suffice."""

import copy
import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh import output_of
from lightning_fabric import Fabric
from tiny_runs import TINY, TinyTask, assert_same_bits
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.cli.main import main
from hybridvit.data.generated import GeneratedImages
from hybridvit.errors import OutOfMemory
from hybridvit.evaluate.run import evaluate_model
from hybridvit.recipe.file import load_recipe
from hybridvit.task import Moment, Objective
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.tasks.classify.task import Classify
from hybridvit.training import auto_batch
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.start import material_of
from hybridvit.training.train import train


class Limited(TinyTask):
    """A task on a device whose memory holds the activations of `holds` images."""

    holds = 4

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        if len(batch.inputs) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().loss(learn, model, batch, moment)


def with_micro_batch(recipe: ClassifyRecipe, micro_batch: Any, output: Path) -> ClassifyRecipe:
    data = dataclasses.replace(recipe.data, micro_batch=micro_batch)
    return dataclasses.replace(recipe, data=data, output=str(output))


def last_state(folder: Path) -> dict[str, Any]:
    newest = newest_snapshot(folder / "checkpoints")
    assert newest is not None
    return read_snapshot(newest)


def test_auto_trains_as_the_number_it_finds_and_keeps_it_for_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = with_micro_batch(TINY, "auto", tmp_path / "auto")
    train(auto, task=Limited())
    assert "Micro-batch: 4 images, 2 of them in a step (found by trying; a step has 8)" in capsys.readouterr().err
    train(with_micro_batch(TINY, 4, tmp_path / "four"), progress=False, task=Limited())
    assert_same_bits(last_state(tmp_path / "auto"), last_state(tmp_path / "four"))
    assert load_recipe(str(tmp_path / "auto" / "recipe.yaml")).data.micro_batch == 4
    train(auto, resume=True, progress=False, task=TinyTask())  # would hold all 8, and goes on with 4


def test_a_trial_leaves_the_task_and_all_random_generators_as_they_were() -> None:
    recipe = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, micro_batch=0))
    fabric = Fabric(accelerator="cpu", devices=1)
    task = Limited()
    material = material_of(recipe, task)
    weights = copy.deepcopy(material.model.state_dict())
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert auto_batch.find_micro_batch(recipe, fabric, task, material, say=lambda _: None) == 4
    assert_same_bits(material.model.state_dict(), weights)
    assert all(parameter.grad is None for parameter in material.model.parameters())
    assert_same_bits((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()), generators)


def test_a_step_that_memory_does_not_hold_names_a_smaller_one_and_nothing_fits_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutOfMemory, match=r"micro-batch of 8 .* Use --data.micro_batch 4: the step still sees 8"):
        train(with_micro_batch(TINY, 0, tmp_path / "run"), progress=False, task=Limited())
    monkeypatch.setattr(Limited, "holds", 1)
    with pytest.raises(OutOfMemory, match=r"micro-batch of 2 images .* cannot be smaller"):
        train(with_micro_batch(TINY, "auto", tmp_path / "none"), progress=False, task=Limited())
    assert not (tmp_path / "none").exists()


def test_the_command_line_ends_with_6_and_knows_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", "--batch", "auto", "--print_config"]) == 0
    assert "micro_batch: auto" in capsys.readouterr().out

    def too_large(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("hybridvit.tasks.classify.objective.ClassifyObjective.loss", too_large)
    small = "--data.source=generated --data.image_size=32 --data.total_batch=8 --data.workers=0 --model=fastvit_debug"
    words = ["train", "digits", *small.split(), "--accelerator=cpu", f"--output={tmp_path / 'run'}", "--batch=4"]
    assert main(words) == OutOfMemory.exit_code == 6
    assert "--data.micro_batch 2" in capsys.readouterr().err


def test_evaluation_shares_out_a_batch_that_memory_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = hybridvit.create_model("fastvit_debug", num_classes=10).eval()
    images = GeneratedImages(length=23)

    def evaluated() -> tuple[dict[int, int], Mapping[str, float]]:
        """The answer to each image, and the scores."""
        scores = evaluate_model(model, images, Classify(), model.card, batch_size=10, num_examples=len(images)).scores
        return {example.sample: example.result.indices[0] for example in scores.examples}, scores.values

    answers, expected = evaluated()
    assert len(answers) == 23
    forward, sizes = type(model).forward, []

    def limited(self: nn.Module, x: Tensor) -> Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(type(model), "forward", limited)
    limited_answers, found = evaluated()
    assert limited_answers == answers
    assert found["top1"] == expected["top1"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert sizes == [2, 2, 2, 2, 2] * 2 + [2, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "A batch of 10 images does not fit into memory for evaluation: going on with 5.",
        "A batch of 5 images does not fit into memory for evaluation: going on with 2.",
    ]


@pytest.mark.nightly
def test_a_limit_of_the_process_is_honoured() -> None:
    unlimited, limited = map(int, output_of("limited_memory").split())
    assert unlimited == 32
    assert 2 <= limited < 4096
