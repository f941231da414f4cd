"""One of two processes that train together: pair.py WHAT RANK FOLDER TIMEOUT_SECONDS.

In the second step, process RANK raises, kills itself or hangs (WHAT: raise, kill, hang).
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from tiny_runs import TINY, TinyTask

from hybridvit.cli.main import guarded
from hybridvit.errors import DatasetError
from hybridvit.training.train import train

if __name__ == "__main__":
    what, rank, folder, timeout_seconds = sys.argv[1:]

    def disturb(place: str, count: int) -> None:
        if (place, count) != ("loss", 5) or os.environ["LOCAL_RANK"] != rank:
            return
        if what == "raise":
            raise DatasetError("The images are gone.")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        (Path(folder) / "hangs").touch()
        time.sleep(1000)

    def run() -> int:
        data = dataclasses.replace(TINY.data, micro_batch=2)
        recipe = dataclasses.replace(TINY, data=data, devices=2, timeout_seconds=float(timeout_seconds), output=folder)
        train(recipe, progress=False, task=TinyTask(disturb))
        return 0

    sys.exit(guarded(run, debug=False))
