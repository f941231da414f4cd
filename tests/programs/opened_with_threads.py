"""Open a .pte file with three threads, and print how many ExecuTorch has: opened_with_threads.py FILE."""

import sys

from hybridvit.export import load_runner

if __name__ == "__main__":
    runner = load_runner(sys.argv[1], threads=3)
    from executorch.extension.pybindings import portable_lib

    print(portable_lib._threadpool_get_thread_count())
