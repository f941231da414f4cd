"""How the threads of a long computation wait for each other."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

POLICY = "OMP_WAIT_POLICY"
_set_here: set[str] = set()  # names of the variables that the user did not set


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep, not spin, at the end of each parallel loop; to be called before torch is loaded.

    Where other processes want the cores too, a spinning thread keeps the one it waits for from running: on 2 cores
    under a load of 5, training of the digits went at 8 images/s with spinning and at 221 without. A policy that the
    user has set stays.
    """
    if "torch" not in sys.modules and POLICY not in os.environ:
        os.environ[POLICY] = "PASSIVE"
        _set_here.add(POLICY)


def given_environment() -> dict[str, str]:
    """The environment as the user set it, for what is timed: there threads wait as in any program.

    On a quiet machine sleeping costs PyTorch's eager mode speed that other runtimes, with threads of their own, keep.
    """
    return {name: value for name, value in os.environ.items() if name not in _set_here}


@contextmanager
def as_given() -> Iterator[None]:
    """Have what is started meanwhile inherit `given_environment`."""
    set_here = {name: os.environ.pop(name) for name in _set_here if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(set_here)
