"""How the threads of a long computation wait for each other."""

import os
import sys


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep, not spin, at the end of each parallel loop; to be called before torch is loaded.

    Where other processes want the cores too, a spinning thread keeps the one it waits for from running: on 2 cores
    under a load of 5, training of the digits went at 8 images/s with spinning and at 221 without. A policy that the
    user has set stays.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
