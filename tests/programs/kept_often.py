"""The command line, whose bench keeps what it has measured after every half second instead of every ten."""

import sys

from hybridvit.__main__ import run
from hybridvit.measure import bench

if __name__ == "__main__":
    bench.KEEP_SECONDS = 0.5
    sys.exit(run())
