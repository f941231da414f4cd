"""Reads a pickle without running it: what it asks to be called is written down, and never called.

A pickle is a program for a small machine, and `pickle.load` is that machine, which imports and calls whatever it is
told to. This is a machine that cannot: it has a stack, a memo, and the instructions that make numbers, text, lists,
tuples and dicts. A name of a class or function must be in a table of the caller's, and stands for itself from then on.
Work and memory are bounded by the size of the file and `MOST_STEPS`.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridvit.errors import CheckpointError, one_line

MOST_STEPS = 20_000
LONGEST = 60  # characters of a file's text in a message
_DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, struct.error),
    Warning,  # of escapes in text, where a program has warnings raise
)


@dataclass(frozen=True)
class Named:
    """A class or function that the file names, by what the caller's table calls it."""

    kind: str


@dataclass(eq=False)
class Made:
    """What calling `kind` with the arguments would have given, and the state that it would have been given after."""

    kind: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes, names: Mapping[tuple[str, str], str]) -> Any:
    """The content of a pickle: numbers, text, lists, tuples, dicts (of text keys; others are left out), `Made`s.

    `names` has the classes and functions that may occur, by module and name, and what to call them. Text that Python 2
    wrote has a character for each byte; sets are lists. Raises CheckpointError for a file that is no pickle, is
    damaged, or asks for anything else; its text is the end of a sentence about the file.
    """
    machine = _Machine(names)
    try:
        for step, (code, argument, _) in enumerate(pickletools.genops(data)):
            if step >= MOST_STEPS:
                raise CheckpointError(f"has more than {MOST_STEPS:,} instructions, but a hand model has some hundreds")
            if code.name == "STOP":
                return machine.pop()
            if code.name not in INSTRUCTIONS:
                raise CheckpointError(f"has the instruction {code.name}, which has no place in a hand model")
            INSTRUCTIONS[code.name](machine, argument)
    except CheckpointError:
        raise
    except _DAMAGED as error:
        raise CheckpointError(f"is no pickle, or is damaged ({one_line(error)})") from error
    raise CheckpointError("is cut short")


def shown(text: object) -> str:
    """The start of what a file says, fit for a line of ours: it may be long, and may steer a terminal."""
    if not isinstance(text, str):
        return type(text).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])


class _Machine:
    """The stack, the stacks below its marks, and what was put away by number."""

    def __init__(self, names: Mapping[tuple[str, str], str]) -> None:
        self.names = names
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def name(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str) and (module, name) in self.names):
            asked = f"{shown(module)}.{shown(name)}"
            raise CheckpointError(f"asks for {asked}, which has no place in a hand model: nothing was run")
        self.push(Named(self.names[module, name]))

    def make(self) -> None:
        arguments, named = self.pop(), self.pop()
        if not isinstance(named, Named) or not isinstance(arguments, tuple):
            raise CheckpointError("asks to call what is no class or function: nothing was run")
        self.push(Made(named.kind, arguments))

    def build(self) -> None:
        state, made = self.pop(), self.stack[-1]
        if not isinstance(made, Made) or made.state is not None:
            raise CheckpointError("gives a state to what takes none: nothing was run")
        made.state = state

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("keys and values without a dict")
        target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str))

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("items without a list")
        target += items


def _last(count: int) -> Callable[[_Machine, Any], None]:
    """A tuple of the last values."""

    def instruction(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return instruction


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(VALUES, _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, number: machine.push(machine.memo[number])),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.make()),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.push([])),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _: machine.push(machine.since_mark())),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.since_mark())),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "MARK": lambda machine, _: machine.mark(),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*reversed((machine.pop(), machine.pop()))),
    "BUILD": lambda machine, _: machine.build(),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "SETITEM": lambda machine, _: machine.set_items([*reversed((machine.pop(), machine.pop()))]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "EMPTY_TUPLE": _constant(()),
    "TUPLE1": _last(1),
    "TUPLE2": _last(2),
    "TUPLE3": _last(3),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
}
"""What each instruction that may occur does. Of protocols 0 and 1, whose numbers are text, there are none."""
