"""Jobs on a Ray cluster of two nodes of one processor each: two_nodes.py MODEL FOLDER.

FOLDER has the folders of pictures "paced" and "mixed". Each job writes a folder of its own there; the last line is JSON
of what cannot be seen in these.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from hybridvit.jobs.options import Resources, Wanted
from hybridvit.jobs.run import run_job

OBJECTS_BYTES = 100_000_000
LIMIT_S = 120.0


def num_parts(folder: Path) -> int:
    """How many parts are there."""
    return len(list(folder.glob("part-*")))


def wait_for_parts(folder: Path, number: int) -> None:
    """Until so many are there."""
    deadline = time.monotonic() + LIMIT_S
    while num_parts(folder) < number:
        assert time.monotonic() < deadline, folder
        time.sleep(0.02)


class Jobs:
    """The jobs that are tried, one after the other."""

    def __init__(self, model: Path, root: Path, cluster: Cluster) -> None:
        self.model, self.root, self.cluster = model, root, cluster

    def run(self, pictures: str, name: str, workers: str, unit: int) -> dict[str, Any]:
        """One job, by the function."""
        resources = Resources(engine="ray", address=self.cluster.address, workers=workers, batch=4)
        wanted = Wanted(unit=unit)
        return run_job(
            self.model, [self.root / pictures], self.root / name, wanted=wanted, resources=resources, say=print
        ).summary

    def with_a_node_lost(self, name: str, node: Any) -> dict[str, Any]:
        """A job that loses a node once it has two parts."""

        def lose() -> None:
            wait_for_parts(self.root / name, 2)
            self.cluster.remove_node(node, allow_graceful=False)

        thread = threading.Thread(target=lose)
        thread.start()
        summary = self.run("paced", name, "1:2", 8)
        thread.join()
        return summary

    def with_the_driver_killed(self, name: str) -> dict[str, int]:
        """A job whose command is killed once it has two parts; when these were written. It is not taken up again."""
        words = ["batch", self.model, self.root / "paced", "--output", self.root / name, "--engine", "ray"]
        words += ["--address", self.cluster.address, "--workers", "1", "--batch", "4", "--unit", "8"]
        driver = subprocess.Popen([sys.executable, "-m", "hybridvit", *map(str, words)])
        wait_for_parts(self.root / name, 2)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        time.sleep(1)  # its actors notice
        return {path.name: path.stat().st_mtime_ns for path in (self.root / name).glob("part-*")}


def main(model: Path, root: Path) -> None:
    """Run all jobs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster()
    nodes = [
        cluster.add_node(num_cpus=number, object_store_memory=OBJECTS_BYTES, include_dashboard=False)
        for number in (0, 1, 1)
    ]
    jobs = Jobs(model, root, cluster)
    try:
        for name, workers in (("one", "1"), ("two", "2")):
            jobs.run("paced", name, workers, 8)
        jobs.run("mixed", "mixed-answers", "2", 10)
        before = jobs.with_the_driver_killed("taken-up")
        jobs.run("paced", "taken-up", "1", 8)
        jobs.with_a_node_lost("lost", nodes[2])
    finally:
        cluster.shutdown()
    print(json.dumps({"before": before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
