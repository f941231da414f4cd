"""A training on pictures and masks in files: sizes that change from step to step, a stop in an epoch, ways to judge."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from segment_sets import labels_of, save_mask, save_picture

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.tasks.segment.config import SegmentData, SegmentRecipe
from hybridvit.training.train import train


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve to train on, three to validate on."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(15):
        split = "train" if number < 12 else "val"
        save_picture(root / f"images/{split}/{number}.jpg", number)
        save_mask(root / f"masks/{split}/{number}.png", labels_of(number), "P")
    return root


def recipe_on(root: Path, output: Path) -> SegmentRecipe:
    return SegmentRecipe(
        task="segment",
        model="fastvit_debug",
        head="upernet",
        head_options={"channels": 8, "auxiliary_channels": 8},
        data=SegmentData(root=str(root), image_size=32, train_sizes=(32, 48, 64), total_batch=4, workers=0),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=0, kind="poly", min_lr=0.0),
        ema=EmaConfig(decay=0.0),
        save_every=1 / 3,
        accelerator="cpu",
        output=str(output),
    )


def test_a_run_that_was_stopped_in_an_epoch_ends_with_the_same_bits(pictures: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    straight = train(recipe_on(pictures, tmp_path / "straight"), progress=False)
    folder = shutil.copytree(straight.folder, tmp_path / "stopped")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    shutil.rmtree(newest)  # the one before it lies in the second epoch
    resumed = train(recipe_on(pictures, folder), resume=True, progress=False)
    expected = load_file(straight.model)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(resumed.model).items())
    for row, other in zip(resumed.history, straight.history, strict=True):
        assert row | {"images_per_second": 0} == other | {"images_per_second": 0}
        assert row["train_loss"] == pytest.approx(row["train_loss_main"] + row["train_loss_auxiliary"], rel=1e-4)

    found = {way: hybridvit.evaluate(straight.model, pictures, way=way) for way in ("", "slide", "multi_scale")}
    assert {each.num_samples for each in found.values()} == {3}
    assert all(0 < each.scores.values["miou"] <= 100 for each in found.values())
    assert len({each.scores.values["miou"] for each in found.values()}) > 1
    assert found[""].scores.values["miou"] == pytest.approx(straight.history[-1]["miou"], abs=0.5)
    with pytest.raises(UsageError, match=r"There is no way 'tiles' to evaluate a model"):
        hybridvit.evaluate(straight.model, pictures, way="tiles")
    card: Any = hybridvit.load(straight.model).card
    assert card.class_facts["palette"] == ((0, 0, 0), (200, 0, 0), (0, 200, 0))
