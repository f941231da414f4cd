"""Recipes for images of one's own take any number of them, and say which they do not see."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import Interruption

from hybridvit.errors import DatasetError, UsageError
from hybridvit.recipe.file import load_recipe
from hybridvit.training.fit import fitted, left_over
from hybridvit.training.train import train
from hybridvit.training.trial.dry_run import dry_run

SMALL = {
    "model": "fastvit_debug", "data.image_size": 32, "data.workers": 0, "schedule.epochs": 1, "accelerator": "cpu",
    "augment.rand_augment": "", "ema.decay": 0,
}  # fmt: skip


def photos(root: Path, num_images: int) -> Path:
    for split, count in (("train", num_images), ("val", 2)):
        for number in range(count):
            folder = root / split / ("light" if number % 2 else "dark")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 128, (34, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels + np.uint8(127 * (number % 2))).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("num_images", "batch", "said"),
    [
        (5, 5, "A step takes 5 images, not 64: there are 5 to train on."),
        (20, 20, "A step takes 20 images, not 64: there are 20 to train on."),
        (65, 64, "Each epoch leaves out 1 of 65 training images, another one every time: a step takes 64"),
    ],
)
def test_any_number_of_pictures_trains(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    num_images: int,
    batch: int,
    said: str,
) -> None:
    root = str(photos(tmp_path / "photos", num_images))
    recipe = load_recipe("folder", SMALL | {"data.root": root, "output": str(tmp_path / "run")})
    result = train(recipe)
    printed = capsys.readouterr().err
    assert said in printed
    assert "The warm-up takes 0.2 of 1 epochs, not 2." in printed
    assert result.history[-1]["step"] == 1
    assert "Cosine annealing" not in caplog.text  # timm's word on schedules of one step
    kept = load_recipe(str(result.recipe))
    assert (kept.data.total_batch, kept.schedule.warmup_epochs) == (batch, 0.2)
    if num_images == 5:  # and goes on, by either recipe
        assert train(recipe, resume=True, progress=False).history == result.history
        assert train(kept, resume=True, progress=False).history == result.history


def test_a_dry_run_says_what_an_epoch_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Interruption  # its steps are tried elsewhere

    monkeypatch.setattr("hybridvit.training.trial.dry_run.train", stop)
    said: list[str] = []
    settings = SMALL | {"data.root": str(photos(tmp_path, 20)), "data.total_batch": 8, "dry_run": True}
    with pytest.raises(Interruption):
        dry_run(load_recipe("folder", settings), say=said.append)
    (line,) = (line for line in said if "leaves out" in line)
    assert line.startswith("Each epoch leaves out 4 of 20 training images, others every time: a step takes 8 (")


def test_a_fitted_batch_can_be_shared_out_and_stays_in_a_run_that_goes_on() -> None:
    recipe = load_recipe("folder", {"data.root": "photos", "augment.mixup": 0.2})
    said: list[str] = []
    assert fitted(recipe, 1000, 1, say=said.append) is not None
    assert fitted(recipe, 1000, 1, say=said.append) == recipe
    assert not said
    assert fitted(recipe, 43, 4, say=said.append).data.total_batch == 40  # mixing pairs them, in each of 4 processes
    earlier = fitted(recipe, 22, 1, say=said.append)
    assert fitted(recipe, 30, 1, earlier=earlier, say=said.append).data.total_batch == 22
    assert fitted(recipe, 10, 1, earlier=earlier, say=said.append).data.total_batch == 10
    assert not left_over(128, 64)


def test_other_recipes_are_never_changed_and_say_how_to_fit_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'schedule.warmup_epochs' is 5, but it must lie between 0 and 1"):
        load_recipe("fastvit_t8", {"data.root": "photos", "schedule.epochs": 1})
    settings = SMALL | {"data.root": str(photos(tmp_path, 6)), "fit": False, "schedule.warmup_epochs": 0}
    with pytest.raises(DatasetError, match=r"the training set has 6 images.* Lower data.total_batch, or add --fit"):
        train(load_recipe("folder", settings | {"output": str(tmp_path / "run")}), progress=False)
