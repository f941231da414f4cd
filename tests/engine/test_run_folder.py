"""A run's folder: an earlier run is kept, what does not belong to it is not resumed, and two runs never share it."""

import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import SHORT, TinyTask, go, short

from hybridvit.errors import CheckpointError, UsageError
from hybridvit.machine import lock
from hybridvit.machine.lock import RunLock
from hybridvit.task import Splits
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.training.run.folder import open_run
from hybridvit.training.train import train


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
    program = "import sys, pathlib, time; from hybridvit.machine.lock import RunLock\n"
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
