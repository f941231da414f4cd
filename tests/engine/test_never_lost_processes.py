"""Processes that train together: one raises, is killed or hangs, the launcher is killed or told to stop."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from fresh import ENVIRONMENT, output_of

from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot

TIMEOUT_SECONDS = 10
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One of two that trained together, at its end."""

    pid: int
    code: int
    ended: float  # in seconds since 1970
    text: str  # what it wrote to stderr


PAIRS = [("raise", 1), ("kill", 0), ("hang", 1)]  # process 0 is the one that all others wait for
NIGHTLY_PAIRS = [("kill", 1), ("hang", 0)]


def run_pairs(folder: Path, pairs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], list[Process]]:
    """Let one process of each pair do what it is to do, and wait for both. They run at the same time."""
    words = [f"{what}:{rank}" for what, rank in pairs]
    ends = json.loads(output_of("pairs", folder, TIMEOUT_SECONDS, *words, timeout=300).splitlines()[-1])
    return {
        pair: [
            Process(
                pid=pid,
                code=code,
                ended=ended,
                text=(folder / f"{pair[0]}-{pair[1]}" / f"stderr-{rank}.txt").read_text(encoding="utf-8"),
            )
            for rank, (pid, code, ended) in enumerate(processes)
        ]
        for pair, processes in zip(pairs, ends, strict=True)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def everyday_pairs(folder: Path) -> dict[tuple[str, int], list[Process]]:
    return run_pairs(folder, PAIRS)


@pytest.fixture(scope="module")
def nightly_pairs(folder: Path) -> dict[tuple[str, int], list[Process]]:
    return run_pairs(folder, NIGHTLY_PAIRS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize(
    ("what", "rank"), [*PAIRS, *(pytest.param(*pair, marks=pytest.mark.nightly) for pair in NIGHTLY_PAIRS)]
)
def test_the_others_end_in_time_and_say_who_is_to_blame(
    request: pytest.FixtureRequest, folder: Path, what: str, rank: int
) -> None:
    ran = request.getfixturevalue("everyday_pairs" if (what, rank) in PAIRS else "nightly_pairs")
    guilty, survivor = ran[what, rank][rank], ran[what, rank][1 - rank]
    run = folder / f"{what}-{rank}" / "run"
    seconds = survivor.ended - ((run / "hangs").stat().st_mtime if what == "hang" else guilty.ended)
    print(f"{what} of process {rank}: the other one ended {seconds:.1f} s after it")
    text = survivor.text
    assert survivor.code == 8, text
    assert len(re.findall("^Error: ", text, flags=re.MULTILINE)) == 1, text
    assert "Traceback" not in text
    assert f"Process {1 - rank} waited" in text
    assert "step 2 for others that do not go on" in text
    assert "go on with --resume" in text
    if what == "raise":
        assert guilty.code == 3, guilty.text
        assert f"Process {rank} of 2" in text
        assert "ended" in text
        assert "with DatasetError: The images are gone." in text
    if what == "kill":
        assert guilty.code == -signal.SIGKILL
        assert f"Process {rank} of 2" in text
        assert "is gone" in text
        assert "it was killed or crashed" in text
    if what == "hang":
        assert guilty.code == 8, guilty.text
        assert f"waited for {TIMEOUT_SECONDS} seconds at the exchange of gradients of step 2" in text
        assert f"Process {rank} of 2 (id {guilty.pid} on" in text
        assert "is stuck at the images of step 2" in text
        assert "in disturb" in guilty.text  # the stack says in which line
        assert "in disturb" in (run / f"stacks-{rank}.txt").read_text()
    assert seconds < TIMEOUT_SECONDS + 25  # of which 10 are for a process that ends slowly by itself
    newest = newest_snapshot(run / "checkpoints")
    assert newest is not None
    assert read_snapshot(newest)["position"]["step"] == 2


RECIPE = """
model: fastvit_debug
data: {{source: generated, image_size: 32, total_batch: 8, workers: {workers}}}
output: {output}
schedule: {{epochs: 4000, warmup_epochs: 0}}
validate_every: 5000
timeout_seconds: 10
accelerator: cpu
"""


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def launched(folder: Path, *options: str, by: Sequence[str] = TORCHRUN, workers: int = 0) -> subprocess.Popen[str]:
    """`hybridvit train`, by default in two processes under torchrun, past its first checkpoint."""
    config = folder / "recipe.yaml"
    config.write_text(RECIPE.format(output=folder / "run", workers=workers))
    words = [sys.executable, *by, "-m", "hybridvit", "train", "--config", str(config), *options]
    with (folder / "log.txt").open("a") as log:
        marked = ENVIRONMENT | {"NEVER_LOST": str(folder)}
        launcher = subprocess.Popen(words, stderr=log, stdout=log, env=marked, text=True)
    wait_until(lambda: newest_snapshot(folder / "run" / "checkpoints") is not None or launcher.poll() is not None, 120)
    assert launcher.poll() is None, (folder / "log.txt").read_text()
    return launcher


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[int]:
    """All processes alive with this folder in their environment: launcher, training processes, their loaders."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = f"NEVER_LOST={folder}".encode() in (path / "environ").read_bytes().split(b"\0")
            if marked and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(path.name))
    return found


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by /proc")
def test_when_the_launcher_is_killed_its_processes_save_and_end_and_leave_no_worker(tmp_path: Path) -> None:
    launcher = launched(tmp_path, workers=1)
    assert len(processes_of(tmp_path)) >= 5  # launcher, 2 training processes, 2 of theirs that load images
    launcher.kill()
    launcher.wait()
    began = time.monotonic()
    wait_until(lambda: not processes_of(tmp_path), 30)
    print(f"the last process was gone {time.monotonic() - began:.1f} s after its launcher")
    text = (tmp_path / "log.txt").read_text()
    assert "its launcher is gone; saving and stopping" in text
    assert "Stopped by SIGTERM after step" in text
    assert "Traceback" not in text
    newest = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert f"after step {read_snapshot(newest)['position']['step']} of 8000" in text


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by /proc")
@pytest.mark.parametrize("by", [pytest.param((), id="alone"), pytest.param(TORCHRUN, marks=pytest.mark.nightly)])
def test_when_the_training_processes_are_killed_no_worker_of_theirs_stays(tmp_path: Path, by: Sequence[str]) -> None:
    first = launched(tmp_path, by=by, workers=1)
    others = [process for process in processes_of(tmp_path) if parent_of(process) == first.pid]
    assert len(others) == (2 if by else 1)  # training processes, or the one that loads images
    for process in [first.pid, *(others if by else ())]:
        os.kill(process, signal.SIGKILL)
    first.wait()
    began = time.monotonic()
    wait_until(lambda: not processes_of(tmp_path), 10)
    print(f"the last worker was gone {time.monotonic() - began:.1f} s after the training processes")


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


@pytest.mark.nightly
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_launcher_told_to_stop_has_all_processes_save_and_end_and_the_run_goes_on_after_it(
    tmp_path: Path, goes_on: bool
) -> None:
    launcher = launched(tmp_path)
    began = time.monotonic()
    launcher.terminate()
    launcher.wait(timeout=30)  # after 30 seconds torchrun would kill them
    seconds = time.monotonic() - began
    print(f"ended {seconds:.1f} s after SIGTERM")
    assert not processes_of(tmp_path)
    text = (tmp_path / "log.txt").read_text()
    assert "Stopped by SIGTERM after step" in text
    assert "in use by" not in text
    first = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert first is not None
    assert f"after step {read_snapshot(first)['position']['step']} of 8000" in text
    if not goes_on:  # as after a kill, in the test at the end
        return
    again = launched(tmp_path, "--resume")
    wait_until(lambda: newest_snapshot(tmp_path / "run" / "checkpoints") != first, 120)
    again.terminate()
    again.wait(timeout=30)
    assert f"Going on from {first}" in (tmp_path / "log.txt").read_text()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by /proc")
@pytest.mark.nightly  # kills while saving, SIGTERM, and resuming at each place are tried every day
@pytest.mark.parametrize(("kills", "workers", "epochs"), [(1, 0, 4), (3, 2, 12)])
def test_a_run_killed_at_random_goes_on_by_itself_to_the_same_bits(kills: int, workers: int, epochs: int) -> None:
    options = [f"--kills={kills}", f"--workers={workers}", f"--epochs={epochs}"]
    words = [sys.executable, str(BENCHMARKS / "killed_three_times.py"), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    print(done.stdout.splitlines()[-1])
    assert len(result["kills"]) == kills
    assert result["same"] == dict.fromkeys(("model", "ema", "optimizer", "metrics", "model_file"), True)
