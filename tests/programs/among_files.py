"""Starts each kind of process that the library starts, from a folder of files named like modules."""

from multiprocessing.connection import Connection

from hybridvit.child import Child, in_child
from hybridvit.data.processes import in_processes
from hybridvit.machine.packages import states_of


def doubled(number: int) -> int:
    """What a pool is asked for."""
    return 2 * number


def main() -> None:
    """Print what came back."""
    print(in_child(str), sorted(in_processes(doubled, [1, 2], workers=1, lost=doubled)))
    child = Child(answer, packages=("json",))  # of a forkserver, where there is one
    print(child.receive())
    child.end(patience_s=10)
    print(states_of(["safetensors"])["safetensors"].state)


def answer(pipe: Connection) -> None:
    """What a child does."""
    pipe.send("answer")


if __name__ == "__main__":
    main()
