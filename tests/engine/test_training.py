"""What a run promises besides resuming: refused steps, batches that fit, dry runs, signals, what it leaves."""

import dataclasses
import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh import ENVIRONMENT
from PIL import Image
from tiny_runs import SHORT, TinyTask, assert_same_bits, go, run, short
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.errors import DatasetError, NonFiniteError, OutOfMemory, UsageError
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.task import Moment, Objective
from hybridvit.training.engine.devices import batch_shape
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import train
from hybridvit.training.trial.dry_run import dry_run


class PoisonedTask(TinyTask):
    """The fifth micro-batch is not finite; remembers the state at the end of the step before."""

    model: nn.Module
    before: dict[str, Tensor]

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        if self.calls["loss"] == 4:
            self.model, self.before = model, {name: value.clone() for name, value in model.state_dict().items()}
            batch.inputs[0, 0, 0, 0] = torch.nan
        return super().loss(learn, model, batch, moment)


def test_a_step_that_is_not_finite_is_refused_and_poisons_nothing(tmp_path: Path) -> None:
    recipe, task = short(tmp_path / "run"), PoisonedTask()
    with pytest.raises(NonFiniteError) as caught:
        train(recipe, progress=False, task=task)
    text = str(caught.value)
    assert "Step 2 was refused: loss nan" in text
    assert "learning rate" in text
    assert text.count("generated/") == recipe.data.total_batch  # the files of this step, by name
    assert_same_bits(task.model.state_dict(), task.before)
    newest = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert newest is not None
    saved = read_snapshot(newest)
    assert saved["position"]["step"] == 2
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    straight = run(short(tmp_path / "straight"))
    assert_same_bits(run(recipe, resume=True), straight)


def test_a_run_leaves_a_model_that_can_be_used_and_a_recipe_that_can_be_run(tmp_path: Path) -> None:
    result = go(short(tmp_path / "run"))
    model = hybridvit.load(result.model)
    assert model.card.class_names == tuple("0123456789")
    assert model.card.preprocessing.image_size == (32, 32)
    assert load_recipe(str(result.recipe)) == short(tmp_path / "run")
    assert result.best == max(result.history[-1]["top1"], result.history[-1]["ema_top1"])
    assert json.loads((result.folder / "result.json").read_text())["weights"] == result.weights
    assert list((result.folder / "tensorboard").iterdir())
    assert not (result.folder / "run.lock").exists()


def test_a_batch_that_cannot_be_shared_out_says_what_can() -> None:
    assert batch_shape(SHORT, 2) == (4, 1)
    assert batch_shape(SHORT, 1) == (4, 2)
    with pytest.raises(UsageError, match=r"3 processes cannot share evenly. Use 9, or one of .* 1, 2, 4, 8"):
        batch_shape(SHORT, 3)
    with pytest.raises(UsageError, match="BatchNorm needs two"):
        batch_shape(SHORT, 8)
    with pytest.raises(UsageError, match="Use one of 2, 4, 8"):
        batch_shape(dataclasses.replace(SHORT, data=dataclasses.replace(SHORT.data, micro_batch=3)), 1)


def test_an_odd_batch_cannot_be_mixed(tmp_path: Path) -> None:
    data = dataclasses.replace(SHORT.data, total_batch=9, micro_batch=0)
    with pytest.raises(UsageError, match="9 is odd"):
        go(short(tmp_path / "run", data=data))


def test_a_batch_larger_than_the_set_is_refused_before_the_first_step(tmp_path: Path) -> None:
    data = dataclasses.replace(SHORT.data, total_batch=40, micro_batch=0)
    with pytest.raises(DatasetError, match="the training set has 26"):
        go(short(tmp_path / "run", data=data))


def test_a_dry_run_passes_every_stage_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    dry_run(load_recipe("digits", {"output": str(output), "dry_run": True, "accelerator": "cpu"}))
    text = capsys.readouterr().out
    assert text.count("passed:") == 5
    assert "with the same weights to the last bit" in text
    assert not output.exists()
    with pytest.raises(UsageError, match="Call dry_run"):
        train(load_recipe("digits", {"dry_run": True}))


def test_a_dry_run_finds_what_would_fail(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown model 'fastvit_t9'"):
        dry_run(load_recipe("digits", {"model": "fastvit_t9"}))
    with pytest.raises(UsageError, match="no option of"):
        dry_run(load_recipe("digits", {"model_options": {"drop_pth_rate": 0.1}}))
    with pytest.raises(DatasetError, match=r"none, which is no folder"):
        dry_run(load_recipe("digits", {"data.source": "folder", "data.root": str(tmp_path / "none")}))


def test_the_command_saves_on_sigterm_and_ends_with_143(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "model: fastvit_debug\n"
        "data: {source: generated, image_size: 32, total_batch: 8, workers: 2}\n"
        f"output: {tmp_path / 'run'}\nschedule: {{epochs: 400, warmup_epochs: 0}}\nvalidate_every: 100\n"
    )
    words = [sys.executable, "-m", "hybridvit", "train", "--config", str(config)]
    started = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    while newest_snapshot(tmp_path / "run" / "checkpoints") is None:
        assert started.poll() is None, started.stderr.read()
        time.sleep(0.1)
    started.terminate()
    text = started.communicate(timeout=60)[1]
    assert started.returncode == 143, text
    assert "Stopped by SIGTERM after step" in text
    assert "Traceback" not in text
    saved = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert f"after step {read_snapshot(saved)['position']['step']} of 800" in text
    assert not (tmp_path / "run" / "run.lock").exists()


def test_a_batch_that_does_not_fit_names_the_smaller_one_that_changes_nothing(tmp_path: Path) -> None:
    class Greedy(TinyTask):
        def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match=r"4 images at 32 px .* --data.micro_batch 2: the step still sees 8 images"):
        train(short(tmp_path / "run"), progress=False, task=Greedy())


def test_clipping_sixteen_bits_constant_rate_and_no_average_work_together(tmp_path: Path) -> None:
    recipe = short(
        tmp_path / "run",
        optim=dataclasses.replace(SHORT.optim, clip_norm=1.0, name="sgd"),
        schedule=ScheduleConfig(epochs=1, warmup_epochs=0, kind="constant"),
        ema=EmaConfig(decay=0.0),
        precision="bf16-mixed",
    )
    result = go(recipe)
    assert result.weights == "raw"
    assert result.history[-1]["lr"] == recipe.optim.lr
    assert not [name for name in result.history[-1] if name.startswith("ema_")]
    assert all(value.dtype != torch.bfloat16 for value in hybridvit.load(result.model).state_dict().values())


def test_a_loader_process_that_dies_during_the_forward_pass_is_named_with_what_helps(tmp_path: Path) -> None:
    class Bereft(TinyTask):
        def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
            if moment.step == 1:  # torch says so wherever the process happens to be
                for worker in multiprocessing.active_children():
                    worker.kill()
                    worker.join()
                raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error.")
            return super().loss(learn, model, batch, moment)

    recipe = short(tmp_path / "run", data=dataclasses.replace(SHORT.data, workers=1))
    with pytest.raises(DatasetError, match=r"ended: DataLoader worker \(pid \d+\) .*fewer workers, workers=0"):
        train(recipe, progress=False, task=Bereft())


def test_a_folder_without_validation_images_holds_a_part_of_its_own_out(tmp_path: Path) -> None:
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 128, (40, 36, 3), dtype=np.uint8) + np.uint8(127 * label)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    small = {
        "model": "fastvit_debug", "data.image_size": 32, "data.total_batch": 8, "data.workers": 0,
        "schedule.epochs": 1, "schedule.warmup_epochs": 0, "accelerator": "cpu",
        "data.root": str(tmp_path / "photos"), "output": str(tmp_path / "run"),
    }  # fmt: skip
    with pytest.raises(DatasetError, match=r"has no folder 'train' .* 'dark', 'light'.*--data.train \. "):
        train(load_recipe("folder", small), progress=False)
    with pytest.raises(DatasetError, match=r"has no folder 'val' .*--data.val, or hold out .*--data.val_share 0.2"):
        train(load_recipe("folder", small | {"data.train": "."}), progress=False)
    with pytest.raises(DatasetError, match=r"data.root is .*none, which is no folder"):
        train(load_recipe("folder", small | {"data.root": str(tmp_path / "none")}), progress=False)
    assert not (tmp_path / "run").exists()
    result = train(load_recipe("folder", small | {"data.train": ".", "data.val_share": 0.25}), progress=False)
    assert result.history[-1]["step"] == 2  # 18 images in batches of 8; 6 are held out
    assert hybridvit.load(result.model).card.class_names == ("dark", "light")
