"""What is frozen stays as it is, weights and statistics, and everything else learns."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, TinyTask

import hybridvit
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import UsageError
from hybridvit.recipe.groups import ScheduleConfig
from hybridvit.training.engine.freezing import frozen_parts
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import train
from hybridvit.training.trial.memory_estimate import estimate_memory

FROZEN = {"backbone": ("stem.", "stages.", "expand."), "stages 2": ("stem.", "stages.0.", "stages.1.")}


@pytest.mark.parametrize("freeze", FROZEN)
def test_frozen_parts_keep_weights_and_statistics_and_the_rest_learns(tmp_path: Path, freeze: str) -> None:
    recipe = dataclasses.replace(
        TINY,
        freeze=freeze,
        output=str(tmp_path / "run"),
        schedule=ScheduleConfig(epochs=1, warmup_epochs=0),
        optim=dataclasses.replace(TINY.optim, layer_decay=0.8),
        validate_every=1 / 3,  # each of which leaves its mode behind
    )
    train(recipe, progress=False, task=TinyTask())
    newest = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert newest is not None
    seed_everything("model", recipe.seed)
    start = hybridvit.create_model(recipe.model, num_classes=10, image_size=32, drop_path_rate=0.2).state_dict()
    state = read_snapshot(newest)
    for weights in (state["model"], state["ema"]):
        same = {name for name, value in weights.items() if torch.equal(value, start[name])}
        assert same == {name for name in start if name.startswith(FROZEN[freeze])}


def test_what_cannot_be_frozen_is_refused_with_what_can() -> None:
    with pytest.raises(UsageError, match=r"'freeze' is 'stages', but it must be backbone, or stages and a number"):
        dataclasses.replace(TINY, freeze="stages")
    with pytest.raises(UsageError, match=r"'stages 5', but the model has 4 stages. Freeze so many at most"):
        frozen_parts(hybridvit.create_model("fastvit_debug"), "stages 5")
    with pytest.raises(UsageError, match="Linear has no stages"):
        frozen_parts(torch.nn.Linear(1, 1), "backbone")


def test_a_frozen_backbone_takes_less_memory_in_the_doctors_estimate() -> None:
    recipes = (dataclasses.replace(TINY, freeze=freeze) for freeze in ("", "backbone"))
    whole, head = (estimate_memory(recipe, devices=1, num_classes=10) for recipe in recipes)
    assert head.weights == whole.weights
    assert head.optimizer < whole.optimizer / 2
    assert head.step < whole.step
