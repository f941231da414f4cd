"""Run a command: cost.py WORD... -> its seconds of processor time, and the most bytes of memory that it had.

To be started fresh: a child of a large process counts what that had in memory when it was started.
"""

import resource
import subprocess
import sys

if __name__ == "__main__":
    subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
