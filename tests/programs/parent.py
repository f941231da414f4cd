"""Start a process, say its number, and wait for it: the parent of one that has to end with it."""

import time

from hybridvit.child import Child


def wait(pipe: object) -> None:
    """In the child: for longer than any test."""
    time.sleep(600)


if __name__ == "__main__":
    child = Child(wait)
    print(child.pid, flush=True)
    child.receive()
