"""The command line with one more task, in this process and in those that it starts anew."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hybridvit.task import TASKS

TASKS["number"] = "number_task:Number"

if __name__ == "__main__":
    from hybridvit.cli.main import main

    sys.exit(main(sys.argv[1:]))
