"""A checkpoint is there whole, or the one before it is: whatever fails or dies while it is written."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same_bits

from hybridvit.errors import CheckpointError, DiskFull
from hybridvit.training.run import snapshot
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot, save_snapshot, sweep


def state_of(step: int) -> dict[str, Any]:
    """A state that tells which step it is of, in its tensors and beside them."""
    return {
        "position": {"step": step, "history": [{"step": step, "top1": 12.5}]},
        "model": {"w": torch.full((3, 4), float(step)), "b": torch.arange(step + 5)},
        "optimizer": {"state": {0: {"exp_avg": torch.full((2,), step / 3)}}, "betas": (0.9, 0.999), "ema": None},
    }


class Died(BaseException):
    """Stands for the end of the process: nothing that would clean up gets to do anything."""


class FaultyDisk:
    """Lets every operation on files that is no reading count, and the one with number `fault` fail.

    A write that fails has written half. With `error` None the process dies there: no later operation has any effect.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fault: int = -1, error: int | None = None, times: int = 1) -> None:
        self.fault, self.error, self.times = fault, error, times
        self.trace: list[str] = []
        self.dead = False
        for name in ("mkdir", "rename", "unlink", "rmdir", "fsync", "replace", "chmod"):
            patch.setattr(os, name, self._counting(name, getattr(os, name)))
        patch.setattr(Path, "write_text", self._writing(Path.write_text, lambda path, *_: path))
        patch.setattr(snapshot, "save_file", self._writing(snapshot.save_file, lambda _, path: path))
        patch.setattr(snapshot.time, "sleep", lambda _: None)

    def _counting(self, name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            what = arguments[0]
            if name == "fsync":
                what = os.readlink(f"/proc/self/fd/{what}")
            self._meet(f"{name} {Path(what).name}")
            return do(*arguments, **options)

        return operation

    def _writing(self, do: Callable[..., Any], place: Callable[..., Path]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            path = place(*arguments)
            try:
                self._meet(f"write {path.name}")
            except (OSError, Died):
                if len(self.trace) - 1 == self.fault:
                    do(*arguments, **options)
                    os.truncate(path, path.stat().st_size // 2)
                raise
            return do(*arguments, **options)

        return operation

    def _meet(self, operation: str) -> None:
        if self.dead:
            raise Died
        self.trace.append(operation)
        number = len(self.trace) - 1
        if number >= self.fault >= 0 and (number < self.fault + self.times):
            if self.error is None:
                self.dead = True
                raise Died
            raise OSError(self.error, os.strerror(self.error))


def prepare(folder: Path, situation: str) -> Path:
    """Snapshots of steps 1 and 2, and, in one situation, a damaged one in the place of step 3."""
    for step in (1, 2):
        save_snapshot(folder, step, state_of(step), keep=2)
    if situation == "a damaged one in its place":
        shutil.copytree(folder / "step-000000002", folder / "step-000000003")
    return folder


SITUATIONS = ("between others", "a damaged one in its place", "the first one")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where the system has one: for what writes or syncs tens of thousands of files."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def saved_trace(tmp_path: Path, situation: str) -> list[str]:
    folder = tmp_path / "counted" / "checkpoints"
    if situation != "the first one":
        prepare(folder, situation)
    (tmp_path / "counted").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        disk = FaultyDisk(patch)
        save_snapshot(folder, 3, state_of(3), keep=2)
    return disk.trace


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("fault", ["ENOSPC", "EDQUOT", "EIO", "dies"])
def test_a_fault_at_any_step_of_a_save_leaves_a_whole_checkpoint(memory: Path, situation: str, fault: str) -> None:
    trace = saved_trace(memory, situation)
    assert {line.split()[0] for line in trace} >= {"mkdir", "write", "chmod", "fsync", "rename"}
    error = None if fault == "dies" else getattr(errno, fault)
    for times in (1, 10_000) if error else (1,):  # a fault that passes, and one that stays
        for step in range(len(trace)):
            folder = memory / f"{times}-{step}" / "checkpoints"
            folder.parent.mkdir()
            if situation != "the first one":
                prepare(folder, situation)
            outcome = "saved"
            with pytest.MonkeyPatch.context() as patch:
                FaultyDisk(patch, step, error, times)
                try:
                    save_snapshot(folder, 3, state_of(3), keep=2)
                except DiskFull:
                    outcome = "refused"
                except Died:
                    outcome = "died"
            where = f"{fault} x {times} at {step}: {trace[step]}"
            newest = newest_snapshot(folder)
            if newest is None:
                assert situation == "the first one", where
                assert outcome != "saved", where
            else:
                found = int(newest.name.removeprefix("step-"))
                assert_same_bits(read_snapshot(newest), state_of(found), where)
                assert found in ((3,) if outcome == "saved" else (2, 3)), where
            if error and times == 1:
                assert outcome == "saved", where
            sweep(folder)
            assert all(path.name.startswith("step-") for path in folder.glob("*")), where
            save_snapshot(folder, 4, state_of(4), keep=2)  # and the run goes on as if nothing had been
            assert_same_bits(read_snapshot(folder / "step-000000004"), state_of(4))
            shutil.rmtree(folder.parent)


def test_everything_is_on_the_disk_before_it_gets_its_name_and_the_manifest_is_last(tmp_path: Path) -> None:
    trace = [line.partition(".tmp-")[0] + line.partition(".tmp-")[1] for line in saved_trace(tmp_path, "the first one")]
    writes = [line for line in trace if line.startswith("write")]
    assert writes == ["write state.json", "write tensors.safetensors", "write manifest.json"]
    order = [
        "mkdir checkpoints", "fsync counted", "write tensors.safetensors", "fsync tensors.safetensors",
        "write manifest.json", "fsync manifest.json", "fsync .tmp-", "rename .tmp-", "fsync checkpoints",
    ]  # fmt: skip
    assert [trace.index(line) for line in order] == sorted(trace.index(line) for line in order)
    assert trace.index("fsync state.json") < trace.index("write manifest.json")


def test_pruning_never_removes_the_snapshot_just_written_nor_counts_a_damaged_one_above_it(tmp_path: Path) -> None:
    save_snapshot(tmp_path, 6, state_of(6), keep=1)
    (tmp_path / "step-000000006" / "state.json").write_text("{")
    save_snapshot(tmp_path, 5, state_of(5), keep=1)
    newest = newest_snapshot(tmp_path)
    assert newest is not None
    assert newest.name == "step-000000005"


def test_a_manifest_of_another_step_is_not_believed(tmp_path: Path) -> None:
    save_snapshot(tmp_path, 1, state_of(1), keep=2)
    shutil.copytree(tmp_path / "step-000000001", tmp_path / "step-000000009")
    newest = newest_snapshot(tmp_path)
    assert newest is not None
    assert newest.name == "step-000000001"
    with pytest.raises(CheckpointError, match=r"its manifest.json is that of step 1"):
        read_snapshot(tmp_path / "step-000000009")


def test_a_snapshot_that_cannot_be_deleted_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path, "between others")

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(snapshot, "_remove", refuse)
    save_snapshot(tmp_path, 3, state_of(3), keep=2)
    assert "step-000000001 is not needed any more, but could not be deleted (Input/output error)" in caplog.text
    assert newest_snapshot(tmp_path) == tmp_path / "step-000000003"


def test_the_files_of_a_checkpoint_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_snapshot(tmp_path, 1, state_of(1), keep=2)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o640}


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    save_snapshot(tmp_path, 1, state_of(1), keep=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskFull, match="File too large"):
            save_snapshot(tmp_path, 2, {"w": torch.zeros(100_000)}, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_snapshot(tmp_path) == tmp_path / "step-000000001"


def save_for_ever(folder: Path, told: int) -> None:
    """Save step after step, and tell each one that is done, until killed."""
    newest = newest_snapshot(folder)
    step = int(newest.name.removeprefix("step-")) if newest is not None else 0
    sweep(folder)
    while True:
        step += 1
        save_snapshot(folder, step, {"step": step, "w": torch.full((50_000,), float(step))}, keep=2)
        os.write(told, f"{step}\n".encode())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.nightly)])
def test_a_process_killed_at_random_moments_of_saving_loses_at_most_the_save_it_was_at(
    tmp_path: Path, kills: int
) -> None:
    chance = random.Random(0)
    unreadable = lost = 0
    kills_inside_a_save = 0
    for _ in range(kills):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(reader)
                save_for_ever(tmp_path, writer)
            finally:
                os._exit(1)
        os.close(writer)
        time.sleep(0.02 + 0.1 * chance.random())
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with os.fdopen(reader) as file:
            told = [int(line) for line in file if line.endswith("\n")]
        kills_inside_a_save += bool(list(tmp_path.glob(".tmp-*")))
        newest = newest_snapshot(tmp_path)
        if newest is None:
            unreadable += bool(told)
            continue
        state = read_snapshot(newest)
        assert bool((state["w"] == state["step"]).all())
        lost += bool(told) and state["step"] < told[-1]
    print(f"{kills} kills, {kills_inside_a_save} of them inside a save: {unreadable} unreadable, {lost} lost more")
    assert (unreadable, lost) == (0, 0)
    assert kills_inside_a_save > kills // 5  # or else the test has tried nothing


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert, delete, zero, swap or repeat some bytes; change a number or a word."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(data) + 1)
        length = chance.choice((1, 1, 2, 8, 64))
        kind = chance.randrange(8)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = bytes(chance.randrange(256) for _ in range(length))
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place : place + length] = bytes(len(data[place : place + length]))
        elif kind == 5:
            data[place:place] = data[place : place + length]
        elif kind == 6:
            data[place:place] = chance.choice(
                (b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"null", b"NaN", b'"', b"-1e999")
            )
        else:
            old, new = chance.choice(SWAPS)
            data = bytearray(bytes(data).replace(old, new, 1))
    return bytes(data)


SWAPS = (
    (b'"state.json"', b'"../state.json"'), (b'"state.json"', b'"' + b"x" * 300 + b'"'), (b"true", b"null"),
    (b'"tensors.safetensors"', b'"/etc/passwd"'), (b'"bytes"', b'"size"'), (b'"schema": 1', b'"schema": 2'),
    (b'"step": 7', b'"step": 8'), (b'"files": {', b'"files": ['), (b'"tensor"', b'"tuple"'), (b'"dict"', b'"list"'),
    (b'"dict"', b'"tensor"'), (b'"list"', b'"other"'), (b"{", b"[]"), (b":", b","), (b"model/w", b"model/b"),
    (b'[["position"', b'[[["position"]'), (b'"state.json"', b'"a\\u0000b"'), (b"0", b"1"),
)  # fmt: skip


@pytest.mark.parametrize(
    "mutations", [5_000, pytest.param(2_000_000, marks=(pytest.mark.nightly, pytest.mark.timeout(3600)))]
)
def test_mutated_manifests_and_states_are_refused_or_change_nothing(
    memory: Path, tmp_path: Path, mutations: int
) -> None:
    """Of the manifest: the state read is the one saved, or CheckpointError. The same for the state, as it is hashed.

    Where the manifest is made to fit the mutated state, as an attacker would, what is read may differ: still no other
    exception, and no effect.
    """
    path = save_snapshot(memory, 7, state_of(7), keep=2)
    originals = {name: (path / name).read_bytes() for name in ("manifest.json", "state.json")}
    chance = random.Random(1)
    counts = {"refused": 0, "same": 0, "other": 0}
    for number in range(mutations):
        name = ("manifest.json", "state.json", "state.json")[number % 3]
        fitted = number % 3 == 2
        mutated = mutate(originals[name], chance)
        (path / name).write_bytes(mutated)
        if fitted:
            manifest = json.loads(originals["manifest.json"])
            record = {"bytes": len(mutated), "sha256": hashlib.sha256(mutated).hexdigest()}
            (path / "manifest.json").write_text(json.dumps(manifest | {"files": manifest["files"] | {name: record}}))
        try:
            state = read_snapshot(path)
        except CheckpointError:
            counts["refused"] += 1
        except BaseException:
            (tmp_path / "failing-input").write_bytes(mutated)
            raise
        else:
            if fitted:
                counts["other"] += 1
            else:
                assert_same_bits(state, state_of(7), f"mutation {number}: {mutated!r}")
                counts["same"] += 1
        for original in {name, "manifest.json"} if fitted else {name}:
            (path / original).write_bytes(originals[original])
    print(f"{mutations} mutations: {counts}")
    assert counts["refused"] > mutations // 2
    assert counts["same"] > 0
    assert [entry.name for entry in memory.iterdir()] == [path.name]  # no effect outside it
