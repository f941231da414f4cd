"""Files that are made to harm, and damaged ones: nothing of them runs, and each ends soon, in one kind of error."""

import pickle
import pickletools
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mano_stand_in as stand_in
import numpy as np
import pytest

from hybridvit.errors import CheckpointError
from hybridvit.tasks.hand.mano.file import read_mano

HAND = stand_in.in_manos_order()
START = b"\x80\x02"
CALLED = b"(U\x09touch rantR."  # a call with the text "touch ran", which would leave a file where the test stands
LONGEST_S, MOST_BYTES = 1.0, 64 * 2**20


def part(value: Any) -> bytes:
    """What pushes a value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def array(sides: Any = (3,), code: str = "f8", data: bytes = part("a" * 24), order: str = "<") -> bytes:
    dtype = (
        named("numpy", "dtype")
        + part((code, False, True))
        + b"R"
        + part((3, order, None, None, None, -1, -1, 0))
        + b"b"
    )
    state = b"(" + part(1) + part(sides) + dtype + part(False) + data + b"tb"
    return named("numpy.core.multiarray", "_reconstruct") + part(()) + b"R" + state


def first(value: bytes) -> bytes:
    """A dict whose v_template, which is looked at first, is what these bytes push."""
    return START + b"}" + part("v_template") + value + b"s."


def changed(**changes: Any) -> bytes:
    return stand_in.dumped(stand_in.content(HAND, **changes))


def in_itself() -> bytes:
    inner = stand_in.made("chumpy.ch", "Ch")
    inner.x = inner
    return changed(shapedirs=inner)


def nested_selections() -> bytes:
    value = stand_in.chosen(HAND.shapedirs)
    for _ in range(30):
        value = stand_in.chosen(HAND.shapedirs[:1], a=value, preferred_shape=(778, 3, 10))
    return changed(shapedirs=value)


DOUBLED = b")" + b"q\x00h\x00\x86" * 60  # a tuple of twice a tuple of twice ...: to hash it takes 2^60 steps

FUNCTIONS = (
    *("posix system", "nt system", "os system", "os popen", "subprocess Popen", "__builtin__ eval", "builtins exec"),
    *(
        "builtins getattr",
        "__builtin__ apply",
        "builtins open",
        "importlib import_module",
        "pickle loads",
        "runpy run_path",
    ),
    *("numpy load", "numpy.testing._private.utils runstring", "numpy.core.multiarray fromfile", "torch load"),
    *(
        "chumpy.ch ch",
        "scipy.sparse.csc system",
        "webbrowser open",
        "sys exit",
        "functools partial",
        "operator methodcaller",
    ),
)
INSTRUCTIONS = {
    "INST": START + b"(U\x09touch ranios\nsystem\n.",
    "OBJ": START + b"(" + named("numpy", "dtype") + b"U\x09touch rano.",
    "NEWOBJ_EX": START + named("numpy", "ndarray") + b")}\x92.",
    "PERSID": b"Ptouch ran\n.",
    "BINPERSID": START + b"U\x09touch ranQ.",
    "EXT1": START + b"\x82\x01.",
    "EXT2": START + b"\x83\x01\x00.",
    "EXT4": START + b"\x84\x01\x00\x00\x00.",
    "POP": START + b"0.",
    "DUP": START + b"N2.",
    "NEXT_BUFFER": START + b"\x97.",
    "INT": b"I1\n.",
}
STREAMS: dict[str, Callable[[], bytes]] = {
    **{f"asks for {each}": lambda each=each: START + named(*each.split(" ")) + CALLED for each in FUNCTIONS},
    **{f"has the instruction {name}": lambda data=data: data for name, data in INSTRUCTIONS.items()},
    "names by the stack": lambda: b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + CALLED,
    "names by a number": lambda: b"\x80\x04K\x05K\x06\x93.",
    "calls a text": lambda: START + part("os.system") + CALLED,
    "calls without a tuple": lambda: START + named("numpy", "dtype") + part("f8") + b"R.",
    "sets attributes of a class": lambda: START + named("numpy", "ndarray") + part((None, {"__reduce__": 1})) + b"b.",
    "gives a list a state": lambda: START + b"]" + part({"x": 1}) + b"b.",
    "gives a state twice": lambda: first(array()[:-1] + b"b" + part(5) + b"b"),
    "a sparse matrix too large for any memory": lambda: changed(
        J_regressor=stand_in.sparse(HAND.joint_regressor, _shape=(10**9, 10**9))
    ),
    "a sparse matrix without a shape": lambda: changed(
        J_regressor=stand_in.made("scipy.sparse._csc", "csc_matrix", data=np.zeros(3))
    ),
    "a shape that takes for ever to write out": lambda: (
        changed(J_regressor=stand_in.sparse(HAND.joint_regressor, _shape=("here",))).replace(
            b"U\x04here", DOUBLED.replace(b"q\x00h\x00", b"r\xff\xff\x00\x00j\xff\xff\x00\x00")
        )
    ),
    "a name that steers the terminal": lambda: START + named("os\x1b[2J", "system\x07" * 10_000) + CALLED,
    "negative entries of a sparse matrix": lambda: changed(
        J_regressor=stand_in.sparse(HAND.joint_regressor, indices=np.full(np.count_nonzero(HAND.joint_regressor), -1))
    ),
    "entries of a sparse matrix by reals": lambda: changed(
        J_regressor=stand_in.sparse(HAND.joint_regressor, indices=np.zeros(np.count_nonzero(HAND.joint_regressor)))
    ),
    "a choice of what is not there": lambda: changed(
        shapedirs=stand_in.chosen(HAND.shapedirs, idxs=np.full(778 * 30, 10**12))
    ),
    "a choice of another size": lambda: changed(shapedirs=stand_in.chosen(HAND.shapedirs, idxs=np.arange(5))),
    "chumpy's array in itself": in_itself,
    "chumpy's arrays deep in each other": nested_selections,
    "text longer than the file": lambda: START + b"T\xff\xff\xff\x7fabc.",
    "text of negative length": lambda: START + b"T\xff\xff\xff\xffabc.",
    "text of 2^62 bytes": lambda: b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"a.",
    "bytes of 2^62": lambda: b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b"a.",
    "a number longer than the file": lambda: START + b"\x8b\xff\xff\xff\x7f\x01.",
    "a place far out in the memo": lambda: START + b"Nr\xff\xff\xff\xff.",
    "nothing in the memo": lambda: START + b"h\x07.",
    "nothing on the stack": lambda: START + b".",
    "no mark": lambda: START + b"t.",
    "a frame longer than the file": lambda: b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.",
    "a list in itself": lambda: START + b"]q\x00h\x00a.",
    "a dict in itself": lambda: START + b"}q\x00" + part("x") + b"h\x00s.",
    "a key that takes for ever to hash": lambda: START + b"}" + DOUBLED + b"Ns.",
    "an array that takes for ever to write out": lambda: first(DOUBLED),
    "ten million instructions": lambda: START + b"N" * 10_000_000 + b".",
    "a million marks": lambda: START + b"(" * 1_000_000 + b".",
    "tuples deep in each other": lambda: START + b")" + b"\x85" * 19_000 + b".",
    "items without a list": lambda: START + b"N(NNe.",
    "keys without values": lambda: START + b"}(Nu.",
    "an array of objects": lambda: first(array(code="O8", data=named("os", "system"))),
    "an array of text": lambda: first(array(code="S8")),
    "an array of records": lambda: first(array(code="V8")),
    "an array of reals of no size": lambda: first(array(code="f3")),
    "an array in an order that is none": lambda: first(array(order="os.system")),
    "an array larger than its bytes": lambda: first(array(sides=(2**40, 2**40))),
    "an array of negative sides": lambda: first(array(sides=(-1, -3))),
    "an array of broken sides": lambda: first(array(sides=(1.5, 2))),
    "an array of sides that are true": lambda: first(array(sides=(True, 3))),
    "an array of characters beyond bytes": lambda: first(array(data=part("\u20ac" * 24))),
    "an array of no bytes": lambda: first(array(data=part(None))),
    "an array without a state": lambda: first(named("numpy.core.multiarray", "_reconstruct") + part(()) + b"R"),
    "an array that is a class": lambda: first(named("numpy", "ndarray")),
    "text in no encoding": lambda: START + b"X\x02\x00\x00\x00\xff\xff.",
    "a list": lambda: pickle.dumps([1, 2]),
    "words": lambda: b"no pickle at all",
    "a page": lambda: b"<!DOCTYPE html><html></html>",
    "JSON": lambda: b'{"v_template": []}',
    "zeros": lambda: bytes(1000),
    "the start of a file": lambda: START,
    "an unknown protocol": lambda: b"\x80\xffN.",
}  # fmt: skip


def refused(path: Path, data: bytes) -> str:
    """What is said of a file; it has to be refused soon, and in little memory."""
    path.write_bytes(data)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_mano(path)
        assert time.process_time() - started < LONGEST_S
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("name", STREAMS)
def test_a_hostile_file_is_refused_and_runs_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(tmp_path / "hand.pkl", STREAMS[name]())
    if name.startswith(("asks for", "has the instruction")):
        assert name.replace(" ", ".").removeprefix("asks.for.").removeprefix("has.the.instruction.") in said
        assert "which has no place in a hand model" in said
    assert said.isprintable()
    assert len(said) < 600
    assert [each.name for each in tmp_path.iterdir()] == ["hand.pkl"]


def test_there_are_enough_hostile_files() -> None:
    assert len(STREAMS) >= 40


def damaged(data: bytes, dice: random.Random) -> bytes:
    """A copy that is cut short, or whose bytes are others here and there: half of them those that are no numbers."""
    if dice.random() < 0.2:
        return data[: dice.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(dice.choice((1, 2, 8))):
        place = (
            dice.choice(INSTRUCTION_PLACES) + dice.randrange(6) if dice.random() < 0.7 else dice.randrange(len(data))
        )
        changed[min(place, len(data) - 1)] = dice.randrange(256)
    return bytes(changed)


ORIGINAL = stand_in.dumped(stand_in.content(HAND))
INSTRUCTION_PLACES = [place for _, _, place in pickletools.genops(ORIGINAL)]


NIGHTLY = [pytest.param(500, seed, marks=pytest.mark.nightly) for seed in range(1, 11)]


@pytest.mark.parametrize(("count", "seed"), [(150, 0), *NIGHTLY])
def test_a_damaged_file_is_read_or_refused(
    count: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dice = random.Random(seed)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(count):
        (tmp_path / "hand.pkl").write_bytes(damaged(ORIGINAL, dice))
        started = time.process_time()
        try:
            read_mano(tmp_path / "hand.pkl")
            outcomes["read"] += 1
        except CheckpointError as error:
            assert str(error).isprintable()  # noqa: PT017
            assert len(str(error)) < 600  # noqa: PT017
            outcomes["refused"] += 1
        assert time.process_time() - started < LONGEST_S
    assert min(outcomes.values()) > count / 20
    assert [each.name for each in tmp_path.iterdir()] == ["hand.pkl"]
