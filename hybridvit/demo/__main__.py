"""`make demo`: the whole way once, on real images, into runs/demo.

    python -m hybridvit.demo [--output FOLDER] [--recipe key=value ...]

Handwritten digits, 1,437 to train on and 360 to test; a few minutes on two CPU cores.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hybridvit.cli.main import guarded
from hybridvit.import_path import leave_out_current_folder
from hybridvit.machine.allocator import keep_freed_memory
from hybridvit.machine.threads import let_waiting_threads_sleep


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the demo; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hybridvit.demo", description="Train, fold, export, measure: digits."
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="run folder (default runs/demo)")
    parser.add_argument(
        "--recipe", nargs="+", default=[], metavar="key=value", help="other values for keys of the recipe 'digits'"
    )
    options = parser.parse_args(arguments)
    overrides = dict(word.partition("=")[::2] for word in options.recipe)
    return guarded(lambda: _run(options.output, overrides), debug=False)


def _run(output: Path, overrides: dict[str, str]) -> int:
    leave_out_current_folder()
    keep_freed_memory()
    let_waiting_threads_sleep()
    from hybridvit.demo.walkthrough import walk_through

    walk_through(output, overrides)
    return 0


if __name__ == "__main__":
    sys.exit(main())
