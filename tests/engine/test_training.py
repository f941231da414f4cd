"""What a run promises besides resuming: refused steps, run folders, locks, dry runs, evaluation."""

import dataclasses
import errno
import json
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh import ENVIRONMENT, command
from PIL import Image
from tiny_runs import TINY, TinyTask, assert_same_bits, run
from torch import Tensor, nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.data.generated import GeneratedImages
from hybridvit.errors import CheckpointError, DatasetError, DiskFull, NonFiniteError, OutOfMemory, UsageError
from hybridvit.evaluate.run import Evaluation, evaluate_model
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.report.content import Confusion
from hybridvit.task import Batch, Moment, Objective, Splits
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.engine.devices import batch_shape
from hybridvit.training.run import lock, snapshot
from hybridvit.training.run.folder import open_run
from hybridvit.training.run.lock import RunLock
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot, save_snapshot
from hybridvit.training.train import RunResult, train
from hybridvit.training.trial.dry_run import dry_run

SHORT = dataclasses.replace(TINY, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))


def short(folder: Path, **changes: Any) -> ClassifyRecipe:
    return dataclasses.replace(SHORT, output=str(folder), **changes)


def go(recipe: ClassifyRecipe, **options: Any) -> RunResult:
    return train(recipe, progress=False, task=TinyTask(), **options)


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


def test_an_earlier_run_is_moved_aside_and_the_move_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = short(tmp_path / "run")
    for _ in range(3):
        folder = open_run(recipe)
        (folder.path / "recipe.yaml").write_text("model: x\n")
        folder.lock.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-1", "run-2"]
    assert f"The earlier run in {tmp_path / 'run'} is kept in {tmp_path / 'run-2'}." in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run-2").iterdir()] == ["recipe.yaml"]


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("...")
    with pytest.raises(UsageError, match="holds files that are no run's"):
        open_run(short(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_resuming_nothing_is_an_error_unless_auto_says_that_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        open_run(short(tmp_path / "run"), resume=True)
    assert not (tmp_path / "run").exists()
    open_run(short(tmp_path / "run"), resume="auto").lock.release()
    assert "starting anew" in capsys.readouterr().out


def test_resuming_with_another_recipe_lists_what_changed(tmp_path: Path) -> None:
    go(short(tmp_path / "run"))
    longer = short(tmp_path / "run", seed=5)
    with pytest.raises(UsageError, match="another recipe \\(seed: 0 -> 5\\)"):
        go(longer, resume=True)
    assert len(go(longer, resume=True, allow_changes=True).history) == 1
    go(short(tmp_path / "run", save_every=1.0, keep=9), resume="auto", allow_changes=True)


def test_resuming_with_other_threads_says_that_the_last_bits_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(short(tmp_path / "run"))
    torch.set_num_threads(2)
    train(short(tmp_path / "run"), resume=True, task=TinyTask())
    assert "The number of threads was 1 and is now 2" in capsys.readouterr().err


def test_another_model_or_optimizer_cannot_be_resumed_at_all(tmp_path: Path) -> None:
    go(short(tmp_path / "run"))
    sgd = short(tmp_path / "run", optim=dataclasses.replace(SHORT.optim, name="sgd"))
    with pytest.raises(UsageError, match=r"optim.name: adamw -> sgd\), and its checkpoints fit no other"):
        go(sgd, resume=True, allow_changes=True)


def test_an_unknown_optimizer_names_the_nearest_and_leaves_the_earlier_run(tmp_path: Path) -> None:
    go(short(tmp_path / "run"))
    wrong = short(tmp_path / "run", optim=dataclasses.replace(SHORT.optim, name="adamww"))
    with pytest.raises(UsageError, match=r"'adamww', which is no optimizer of timm. Nearest: 'adamw'"):
        go(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_resuming_on_other_images_is_an_error_unless_allowed_and_on_other_classes_always(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(TinyTask):
        length = 27

    go(short(tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"other training images .*take the change on with --allow_data_change"):
        train(short(tmp_path / "run"), resume=True, progress=False, task=Other())
    train(short(tmp_path / "run"), resume=True, allow_data_change=True, task=Other())
    assert "The run was trained with other training images" in capsys.readouterr().err

    class OtherClasses(TinyTask):
        def open(self, recipe: ClassifyRecipe) -> Splits:
            splits = super().open(recipe)
            splits.train.class_names = tuple("abcdefghij")
            return splits

    with pytest.raises(CheckpointError, match=r"other classes .*Put back what was there, or start a new run"):
        train(short(tmp_path / "run"), resume=True, allow_data_change=True, progress=False, task=OtherClasses())


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.5)


def left_by(path: Path, **changes: str) -> None:
    """The lock of another process, as filelock writes it: what differs from one of this process in `changes`."""
    held = RunLock(path)
    lines = [line.partition("=") for line in (path / "run.lock").read_text(encoding="utf-8").splitlines()]
    held.release()
    written = [f"{key}{equals}{changes.get(key, value)}\n" for key, equals, value in lines]
    (path / "run.lock").write_text("".join(written), encoding="utf-8")


def test_a_folder_in_use_is_refused_at_once_and_a_dead_holder_is_not_obeyed(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    began = time.monotonic()
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
        RunLock(tmp_path)
    held.release()
    held.release()
    assert not list(tmp_path.iterdir())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_by(tmp_path, pid=str(dead.pid))
    RunLock(tmp_path).release()
    left_by(tmp_path, start="1")  # the id was given again
    RunLock(tmp_path).release()
    assert time.monotonic() - began < lock.BEAT_SECONDS


def test_a_killed_holder_does_not_keep_the_folder(tmp_path: Path) -> None:
    program = "import sys, pathlib, time; from hybridvit.training.run.lock import RunLock\n"
    program += "held = RunLock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == b"held"
    with pytest.raises(UsageError, match=f"in use by process {holder.pid} on"):
        RunLock(tmp_path)
    holder.kill()
    holder.communicate()
    RunLock(tmp_path).release()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick_lease")
@pytest.mark.parametrize("host", ["elsewhere", f"{socket.gethostname()}?pidns-1"])
def test_a_holder_on_another_machine_or_in_another_container_is_watched_and_only_a_living_one_obeyed(
    tmp_path: Path, host: str
) -> None:
    name = host.partition("?")[0]
    said: list[str] = []
    left_by(tmp_path, host=host, pid="7")
    RunLock(tmp_path, say=said.append).release()
    assert said == [f"{tmp_path} is locked by process 7 on {name}; watching whether that one lives."]
    left_by(tmp_path, host=host, pid="7")
    living = threading.Timer(0.2, lambda: os.utime(tmp_path / "run.lock"))
    living.start()
    with pytest.raises(UsageError, match=f"in use by process 7 on {name}"):
        RunLock(tmp_path)
    living.join()


@pytest.mark.usefixtures("quick_lease")
def test_a_holder_touches_its_lock_until_it_gives_it_up(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    first = (tmp_path / "run.lock").stat().st_mtime_ns
    deadline = time.monotonic() + 20
    while (tmp_path / "run.lock").stat().st_mtime_ns == first:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    held.release()
    time.sleep(0.3)
    assert not list(tmp_path.iterdir())


def test_a_lock_tells_other_processes_where_it_is_and_nothing_more(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    assert pickle.loads(pickle.dumps(held)).path == held.path
    held.release()


STATE = {"model": {"w": torch.arange(6.0).reshape(2, 3).T}, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}}


def test_a_snapshot_reads_back_with_keys_types_and_bits(tmp_path: Path) -> None:
    state = STATE | {"position": {"loss": 0.1, "history": [{"a": 1}], "pair": (1, "x"), "none": None}}
    assert_same_bits(read_snapshot(save_snapshot(tmp_path, 3, state, keep=2)), state)


def test_only_the_newest_snapshots_stay_in_order_of_number(tmp_path: Path) -> None:
    for step in (9, 10, 999_999_999, 1_000_000_000):
        save_snapshot(tmp_path, step, STATE, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000000", "step-999999999"]
    newest = newest_snapshot(tmp_path)
    assert newest is not None
    assert newest.name == "step-1000000000"


@pytest.mark.parametrize("stage", ["save_file", "sync", "json.dumps"])
def test_a_full_disk_is_said_and_leaves_the_snapshot_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = save_snapshot(tmp_path, 1, STATE, keep=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"hybridvit.training.run.snapshot.{stage}", full)
    monkeypatch.setattr("hybridvit.training.run.snapshot.time.sleep", lambda _: None)
    with pytest.raises(DiskFull, match="step 2 could not be written"):
        save_snapshot(tmp_path, 2, STATE, keep=2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [before.name]
    assert newest_snapshot(tmp_path) == before


def test_a_full_disk_before_the_first_snapshot_promises_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hybridvit.training.run.snapshot.save_file", full)
    monkeypatch.setattr("hybridvit.training.run.snapshot.time.sleep", lambda _: None)
    with pytest.raises(DiskFull, match=r"There is no checkpoint before it. Free some space and start the run again.$"):
        save_snapshot(tmp_path, 1, STATE, keep=2)


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "tensors.safetensors"])
def test_a_snapshot_cut_short_anywhere_does_not_count(tmp_path: Path, file: str) -> None:
    path = save_snapshot(tmp_path, 1, STATE, keep=2)
    content = (path / file).read_bytes()
    for length in range(0, len(content), max(1, len(content) // 20)):
        (path / file).write_bytes(content[:length])
        assert newest_snapshot(tmp_path) is None
    with pytest.raises(CheckpointError, match="is no whole checkpoint"):
        read_snapshot(path)


def test_a_process_killed_while_saving_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    child = subprocess.Popen(command("saving", tmp_path), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    saved = 0
    for _ in range(8):
        saved = int(child.stdout.readline())
    child.kill()
    saved = max([saved, *(int(line) for line in child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    newest = newest_snapshot(tmp_path)
    assert newest is not None
    value = read_snapshot(newest)["w"][0].item()
    assert value in (saved, saved + 1)  # the next one may have been complete, but not yet told
    snapshot.sweep(tmp_path)
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


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


def evaluated(model: nn.Module, root: Path, *, on_bad_image: str = "error", **options: Any) -> Evaluation:
    """The model on a folder of class folders, as its card says."""
    task, card = Classify(), model.card
    assert isinstance(card, ModelCard)
    return evaluate_model(model, task.labelled(str(root), card, on_bad_image=on_bad_image), task, card, **options)


def test_a_folder_of_other_classes_than_an_unnamed_models_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name / "0.png")
    with pytest.raises(DatasetError, match="has 2 class folders, but the model answers with 5 classes and does not"):
        evaluated(hybridvit.create_model("fastvit_debug", num_classes=5), tmp_path)


def test_a_dry_run_finds_what_would_fail(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown model 'fastvit_t9'"):
        dry_run(load_recipe("digits", {"model": "fastvit_t9"}))
    with pytest.raises(UsageError, match="no option of"):
        dry_run(load_recipe("digits", {"model_options": {"drop_pth_rate": 0.1}}))
    with pytest.raises(DatasetError, match=r"none, which is no folder"):
        dry_run(load_recipe("digits", {"data.source": "folder", "data.root": str(tmp_path / "none")}))


class CountingModel(nn.Module):
    """Answers with the brightest of the three colour channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.mean((2, 3))  # b c


def colours(root: Path) -> None:
    for label, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixel = [0, 0, 0]
            pixel[label if number else 0] = 200  # the first image of each class is wrong in all but one
            Image.new("RGB", (40, 40), tuple(pixel)).save(root / name / f"{number}.png")


def test_evaluation_counts_each_image_once_and_names_the_wrong_ones(tmp_path: Path) -> None:
    colours(tmp_path)
    model = CountingModel().train()
    model.card = hybridvit.create_model("fastvit_debug", num_classes=3).card  # type: ignore[assignment]
    result = evaluated(model, tmp_path, batch_size=4, num_examples=9)
    assert result.num_samples == 9
    assert result.scores.values["top1"] == pytest.approx(100 * 7 / 9, abs=1e-3)
    assert result.scores.values["top5"] == 100.0  # of three classes
    (confusion,) = (part for part in result.scores.parts if isinstance(part, Confusion))
    assert confusion == Confusion(class_names=tuple("012"), counts=[[3, 0, 0], [1, 2, 0], [1, 0, 2]])
    right = [number not in (3, 6) for number in range(9)]  # the first of the green ones and of the red ones
    assert result.scores.per_image is not None
    assert result.scores.per_image.tolist() == right
    assert {example.sample: example.right for example in result.scores.examples} == dict(enumerate(right))
    wrong = [(example.sample, example.said, example.truth) for example in result.scores.examples if not example.right]
    assert sorted(wrong) == [(3, "said 0", "is 1"), (6, "said 0", "is 2")]
    assert model.training


def test_evaluation_says_how_many_files_it_left_out(tmp_path: Path) -> None:
    colours(tmp_path)
    (tmp_path / "red" / "0.png").write_bytes(b"")
    model = CountingModel()
    model.card = hybridvit.create_model("fastvit_debug", num_classes=3).card  # type: ignore[assignment]
    result = evaluated(model, tmp_path, on_bad_image="skip")
    assert (result.num_samples, result.num_skipped) == (8, 1)


def test_evaluation_of_one_class_is_refused() -> None:
    card = hybridvit.create_model("fastvit_debug", num_classes=1).card
    with pytest.raises(DatasetError, match="every answer would be right"):
        evaluate_model(CountingModel(), GeneratedImages(length=4, num_classes=1), Classify(), card)


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
