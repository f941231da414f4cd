"""timm's own scripts, with our models in its registry.

    python -m hybridvit.timm benchmark.py --model hybridvit_fastvit_t8
    torchrun --nproc-per-node 2 -m hybridvit.timm train.py --model hybridvit_fastvit_t8 ...

The scripts lie in timm's repository, and import timm alone: run by themselves they know its own models.
"""

import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path


def main(words: Sequence[str]) -> int:
    """Run the script `words[0]` with the other words as its arguments; the exit code."""
    if not words or not Path(words[0]).is_file():
        found = f"'{words[0]}' is no file" if words else "No script is given"
        print(
            f"Error: {found}. Give the path of a script of timm and its options, as in "
            "'python -m hybridvit.timm benchmark.py --model hybridvit_fastvit_t8'.",
            file=sys.stderr,
        )
        return 2
    sys.argv = list(words)
    sys.path.insert(0, str(Path(words[0]).resolve().parent))  # as Python does for a script
    import_module("timm")  # which registers our models
    runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
