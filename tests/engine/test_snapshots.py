"""A checkpoint of a run reads back as it was, and one that is not whole does not count."""

import errno
import subprocess
from pathlib import Path

import pytest
import torch
from fresh import ENVIRONMENT, command
from tiny_runs import assert_same_bits

from hybridvit.errors import CheckpointError, DiskFull
from hybridvit.training.run import snapshot
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot, save_snapshot

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
