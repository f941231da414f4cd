"""Windows and macOS do not fork: what starts processes works without."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "programs" / "spawned.py"


def digests(folder: Path, *trainings: str) -> dict[str, str]:
    """Of the model of each training, after photos were checked and packed."""
    words = [sys.executable, str(PROGRAM), str(folder), *trainings]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("model "))


def test_check_data_shard_and_train_work_with_spawned_processes(tmp_path: Path) -> None:
    assert digests(tmp_path, "shards-1").keys() == {"shards-1"}


@pytest.mark.nightly
def test_spawned_workers_change_no_bit(tmp_path: Path) -> None:
    found = digests(tmp_path, "folder-0", "folder-1")
    assert found["folder-0"] == found["folder-1"]
