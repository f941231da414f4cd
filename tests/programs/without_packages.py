"""What commands say where a package is not installed: without_packages.py FILE, of a JSON list of [package, words].

Each runs in a process of its own, forked where that is safe, so that what all need is imported once. For each it prints
a line of JSON: the message of its error, and the files that the error came through.
"""

import json
import multiprocessing
import sys
import traceback
from pathlib import Path
from typing import Any

import timm
import torch

import hybridvit
from hybridvit import loading
from hybridvit.child import CAN_FORK
from hybridvit.cli.main import main
from hybridvit.errors import HybridViTError
from hybridvit.export import pipeline
from hybridvit.measure import bench
from hybridvit.training import train

FOR_ALL = (timm, bench, loading, pipeline, train)
PACKAGE = Path(hybridvit.__file__).parent


def run(package: str, words: list[str]) -> None:
    """The command without the package: importing it fails, and `find_spec` does not find it."""
    for name in [each for each in sys.modules if each.startswith(f"{package}.")]:
        del sys.modules[name]
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        main([*words, "--debug"])
    except Exception as error:
        files = {Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)}
        ours = sorted(file.relative_to(PACKAGE).as_posix() for file in files if file.is_relative_to(PACKAGE))
        is_told = isinstance(error, HybridViTError)
        said = {"message": str(error) if is_told else f"{type(error).__name__}: {error}", "files": ours}
    else:
        said = {"message": "", "files": []}
    print("said:", json.dumps(said), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    context: Any = multiprocessing.get_context("fork" if CAN_FORK else "spawn")
    for package, words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        process = context.Process(target=run, args=(package, words))
        process.start()
        process.join()
