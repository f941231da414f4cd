"""`python -m hybridvit`: the command line."""

import sys

from hybridvit.cli import main

if __name__ == "__main__":
    sys.exit(main())
