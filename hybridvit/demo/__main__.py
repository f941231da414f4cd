"""`make demo`, `make demo-segmentation` and its like: the whole way once, into runs/demo and its like.

    python -m hybridvit.demo [digits | segmentation | detection | hand] [--output FOLDER] [--recipe key=value ...]

A few minutes on two CPU cores each.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hybridvit.cli.main import guarded
from hybridvit.demo.demos import DEMOS, Demo
from hybridvit.import_path import leave_out_current_folder
from hybridvit.machine.allocator import keep_freed_memory
from hybridvit.machine.threads import let_waiting_threads_sleep


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the demo; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hybridvit.demo", description="Train, fold, export, measure.")
    parser.add_argument("demo", nargs="?", choices=[*DEMOS], default="digits", help="what to show (default digits)")
    parser.add_argument("--output", type=Path, help="run folder (default runs/demo and its like)")
    parser.add_argument(
        "--recipe", nargs="+", default=[], metavar="key=value", help="other values for keys of the recipe"
    )
    options = parser.parse_args(arguments)
    overrides = dict(word.partition("=")[::2] for word in options.recipe)
    demo = DEMOS[options.demo]
    return guarded(lambda: _run(demo, options.output or Path(demo.folder), overrides), debug=False)


def _run(demo: Demo, output: Path, overrides: dict[str, str]) -> int:
    leave_out_current_folder()
    keep_freed_memory()
    let_waiting_threads_sleep()
    from hybridvit.demo.walkthrough import walk_through

    walk_through(demo, output, overrides)
    return 0


if __name__ == "__main__":
    sys.exit(main())
