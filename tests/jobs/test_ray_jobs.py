"""Jobs on two Ray nodes, of which one is lost, and whose driver is killed; in a network that ends at this machine."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fresh import ENVIRONMENT, PROGRAMS
from required import missing

from hybridvit.jobs.worker import DIED
from jobs.photos import write_photos
from jobs.tables import pace_of, parts_of, rows_of

pytestmark = pytest.mark.xdist_group("ray")
PACED, UNIT = 64, 8


def has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-n", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def jobs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder with all jobs' folders, and what the program said."""
    if find_spec("ray") is None:
        missing("ray", 'pip install "hybridvit[ray]"')
    if not has_namespaces():
        missing("ray", "its ports listen on every interface, so it runs in a namespace of its own: be root on Linux")
    root = tmp_path_factory.mktemp("jobs")
    write_photos(root / "paced", slow=PACED)
    write_photos(root / "mixed", a=9, bad=2, kills=1, z=8)
    path = f"{PROGRAMS / 'opening'}:{ENVIRONMENT['PYTHONPATH']}"
    words = ["unshare", "-n", sys.executable, PROGRAMS / "apart.py", sys.executable, PROGRAMS / "two_nodes.py"]
    done = subprocess.run(
        [*map(str, words), str(model), str(root)],
        env=ENVIRONMENT | {"PYTHONPATH": path, "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return root, json.loads(done.stdout.splitlines()[-1])


def test_a_second_node_doubles_the_pace(jobs: tuple[Path, dict[str, Any]]) -> None:
    one, two = (pace_of(jobs[0] / name, unit=UNIT) for name in ("one", "two"))
    assert two / (2 * one) >= 0.95, (one, two)


@pytest.mark.parametrize("name", ["one", "two", "taken-up", "lost"])
def test_each_picture_is_there_once_whatever_was_lost(jobs: tuple[Path, dict[str, Any]], name: str) -> None:
    rows = rows_of(jobs[0] / name)
    assert len(rows) == PACED
    assert rows == rows_of(jobs[0] / "one")
    assert len(parts_of(jobs[0] / name)) == PACED // UNIT
    assert not [path for path in (jobs[0] / name).iterdir() if path.name.startswith(".")]


def test_parts_that_were_done_before_the_driver_was_killed_stay_as_they_are(jobs: tuple[Path, dict[str, Any]]) -> None:
    before, after = jobs[1]["before"], parts_of(jobs[0] / "taken-up")
    assert 2 <= len(before) < len(after)
    assert {name: after[name] for name in before} == before


def test_bad_and_deadly_pictures_are_rows(jobs: tuple[Path, dict[str, Any]]) -> None:
    rows = {Path(row["image"]).name: row for row in rows_of(jobs[0] / "mixed-answers")}
    assert len(rows) == 20
    assert sorted(name for name, row in rows.items() if row["error"]) == [
        "bad-0000.png",
        "bad-0001.png",
        "kills-0000.png",
    ]
    assert rows["kills-0000.png"]["error"] == DIED
