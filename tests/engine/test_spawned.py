"""Windows and macOS do not fork: what starts processes works without."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "programs" / "spawned.py"


def test_check_data_shard_and_train_work_with_spawned_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)], capture_output=True, encoding="utf-8", check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    digests = dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("model "))
    assert digests.keys() == {"folder-0", "folder-1", "shards-1"}
    assert digests["folder-0"] == digests["folder-1"]
