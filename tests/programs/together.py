"""Call functions of test modules, one after the other: together.py FOLDER MODULE.FUNCTION...

For torchrun, which starts it in several processes. Each function gets a folder of its name inside FOLDER, where what
process N said is left in said-N.txt, and passed-N once it has passed. The first that fails ends the process.
"""

import contextlib
import importlib
import os
import sys
import traceback
import warnings
from pathlib import Path

import torch

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    rank = os.environ["RANK"]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in names:
        module, _, function = name.rpartition(".")
        place = Path(folder) / function
        place.mkdir(parents=True, exist_ok=True)
        with (
            (place / f"said-{rank}.txt").open("w", encoding="utf-8") as said,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            try:
                getattr(importlib.import_module(module), function)(place)
            except BaseException:
                traceback.print_exc()
                raise
        (place / f"passed-{rank}").touch()
