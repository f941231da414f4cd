"""Processes that train together: one raises, is killed or hangs, the launcher is killed or told to stop."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fresh import ENVIRONMENT, command

from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot

TIMEOUT_SECONDS = 10
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_pair(folder: Path, what: str, rank: int) -> list[subprocess.Popen[str]]:
    """Two processes without a launcher that would end one when the other has: each has to see to itself."""
    folder.mkdir()
    port = str(free_port())
    return [
        subprocess.Popen(
            command("pair", what, rank, folder / "run", TIMEOUT_SECONDS),
            env=ENVIRONMENT | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(local_rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for local_rank in (0, 1)
    ]


@pytest.mark.parametrize(
    ("what", "rank"),
    [
        ("raise", 1),
        ("kill", 0),  # the one that all others wait for
        pytest.param("kill", 1, marks=pytest.mark.nightly),
        ("hang", 1),
        pytest.param("hang", 0, marks=pytest.mark.nightly),
    ],
)
def test_the_others_end_in_time_and_say_who_is_to_blame(tmp_path: Path, what: str, rank: int) -> None:
    pair = start_pair(tmp_path / what, what, rank)
    texts = ["", ""]
    guilty, survivor = pair[rank], pair[1 - rank]
    if what == "hang":
        wait_until(lambda: (tmp_path / what / "run" / "hangs").exists() or survivor.poll() is not None, 300)
    else:
        texts[rank] = guilty.communicate(timeout=300)[1]
    began = time.monotonic()
    texts[1 - rank] = survivor.communicate(timeout=300)[1]
    seconds = time.monotonic() - began
    texts[rank] = texts[rank] or guilty.communicate(timeout=30)[1]
    print(f"{what} of process {rank}: the other one ended {seconds:.1f} s after it")
    text = texts[1 - rank]
    assert survivor.returncode == 8, text
    assert text.count("\nError: ") == 1, text
    assert "Traceback" not in text
    assert f"Process {1 - rank} waited" in text
    assert "step 2 for others that do not go on" in text
    assert "go on with --resume" in text
    if what == "raise":
        assert guilty.returncode == 3, texts[rank]
        assert f"Process {rank} of 2" in text
        assert "ended" in text
        assert "with DatasetError: The images are gone." in text
    if what == "kill":
        assert guilty.returncode == -signal.SIGKILL
        assert f"Process {rank} of 2" in text
        assert "is gone" in text
        assert "it was killed or crashed" in text
    if what == "hang":
        assert guilty.returncode == 8, texts[rank]
        assert f"waited for {TIMEOUT_SECONDS} seconds at the exchange of gradients of step 2" in text
        assert f"Process {rank} of 2 (id {guilty.pid} on" in text
        assert "is stuck at the images of step 2" in text
        assert "in disturb" in texts[rank]  # the stack says in which line
        assert "in disturb" in (tmp_path / what / "run" / f"stacks-{rank}.txt").read_text()
    assert seconds < TIMEOUT_SECONDS + 25  # of which 10 are for a process that ends slowly by itself
    newest = newest_snapshot(tmp_path / what / "run" / "checkpoints")
    assert newest is not None
    assert read_snapshot(newest)["position"]["step"] == 2


RECIPE = """
model: fastvit_debug
data: {{source: generated, image_size: 32, total_batch: 8, workers: 1}}
output: {output}
schedule: {{epochs: 4000, warmup_epochs: 0}}
validate_every: 5000
timeout_seconds: 10
accelerator: cpu
"""


def launched(folder: Path, *options: str) -> subprocess.Popen[str]:
    """`hybridvit train` under torchrun, two processes with a loader process each, past its first checkpoint."""
    config = folder / "recipe.yaml"
    config.write_text(RECIPE.format(output=folder / "run"))
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "hybridvit", "train", "--config", str(config), *options),
    ]
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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by /proc")
def test_when_the_launcher_is_killed_its_processes_save_and_end_and_leave_no_worker(tmp_path: Path) -> None:
    launcher = launched(tmp_path)
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
def test_when_the_training_processes_are_killed_no_worker_of_theirs_stays(tmp_path: Path) -> None:
    launcher = launched(tmp_path)
    trainers = [process for process in processes_of(tmp_path) if parent_of(process) == launcher.pid]
    assert len(trainers) == 2
    for process in [launcher.pid, *trainers]:
        os.kill(process, signal.SIGKILL)
    launcher.wait()
    began = time.monotonic()
    wait_until(lambda: not processes_of(tmp_path), 10)
    print(f"the last worker was gone {time.monotonic() - began:.1f} s after the training processes")


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


@pytest.mark.parametrize("goes_on", [False, pytest.param(True, marks=pytest.mark.nightly)])
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
@pytest.mark.parametrize(("kills", "workers", "epochs"), [(1, 0, 4), pytest.param(3, 2, 12, marks=pytest.mark.nightly)])
def test_a_run_killed_at_random_goes_on_by_itself_to_the_same_bits(kills: int, workers: int, epochs: int) -> None:
    options = [f"--kills={kills}", f"--workers={workers}", f"--epochs={epochs}"]
    words = [sys.executable, str(BENCHMARKS / "killed_three_times.py"), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    print(done.stdout.splitlines()[-1])
    assert len(result["kills"]) == kills
    assert result["same"] == dict.fromkeys(("model", "ema", "optimizer", "metrics", "model_file"), True)
