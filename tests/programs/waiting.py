"""Run a command, and print how OpenMP's threads wait after it, and whether torch was imported: waiting.py WORD..."""

import os
import sys

from hybridvit.cli import main

if __name__ == "__main__":
    main(sys.argv[1:])
    print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
