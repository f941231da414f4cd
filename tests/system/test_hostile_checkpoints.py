"""Files made to run code or to exhaust memory: refused with one kind of error, without effect."""

import io
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hybridvit.checkpoints import read_tensors
from hybridvit.checkpoints.sniff import STAND_INS
from hybridvit.errors import CheckpointError

CALLS = {  # what a pickle could name -> its argument; {canary} is a file that must not appear
    "os.system": "touch {canary}",
    "posix.system": "touch {canary}",
    "nt.system": "touch {canary}",
    "os.popen": "touch {canary}",
    "os.execv": "touch {canary}",
    "os.mkdir": "{canary}",
    "os.mkfifo": "{canary}",
    "subprocess.call": "touch {canary}",
    "subprocess.Popen": "touch {canary}",
    "subprocess.check_output": "touch {canary}",
    "subprocess.getoutput": "touch {canary}",
    "pty.spawn": "touch {canary}",
    "builtins.eval": "open('{canary}', 'w')",
    "__builtin__.eval": "open('{canary}', 'w')",
    "builtins.exec": "open('{canary}', 'w')",
    "builtins.compile": "open('{canary}', 'w')",
    "builtins.getattr": "{canary}",
    "builtins.open": "{canary}",
    "builtins.__import__": "antigravity",
    "builtins.bytearray": "{canary}",
    "builtins.map": "{canary}",
    "io.open": "{canary}",
    "_io.FileIO": "{canary}",
    "pathlib.Path": "{canary}",
    "importlib.import_module": "antigravity",
    "runpy.run_path": "{canary}",
    "runpy.run_module": "antigravity",
    "code.interact": "{canary}",
    "pdb.run": "open('{canary}', 'w')",
    "cProfile.run": "open('{canary}', 'w')",
    "timeit.timeit": "open('{canary}', 'w')",
    "operator.attrgetter": "system",
    "operator.methodcaller": "system",
    "functools.partial": "{canary}",
    "types.FunctionType": "{canary}",
    "marshal.loads": "{canary}",
    "pickle.loads": "{canary}",
    "shutil.rmtree": "{canary}",
    "logging.FileHandler": "{canary}",
    "socket.create_connection": "{canary}",
    "urllib.request.urlopen": "file://{canary}",
    "webbrowser.open": "file://{canary}",
    "numpy.load": "{canary}",
    "torch.load": "{canary}",
    "torch.serialization.load": "{canary}",
    "torch.jit.load": "{canary}",
    "torch.hub.load": "{canary}",
    "torch.storage._load_from_bytes": "{canary}",
    "torch.utils.cpp_extension.load_inline": "{canary}",
    "torch.utils.collect_env.run": "touch {canary}",
    "torch._inductor.codecache.compile_file": "{canary}",
    "torch.distributed.run.main": "{canary}",
    "torch._utils._rebuild_wrapper_subclass": "{canary}",
    "torch.nn.modules.linear.Linear": "{canary}",
    "torch.os.system": "touch {canary}",
    "hybridvit.create_model": "fastvit_t8",
}


def call(name: str, argument: str) -> bytes:
    """Pickle code that calls `name`; written out, so that making it imports nothing."""
    module, _, function = name.rpartition(".")
    text = argument.encode()
    return f"c{module}\n{function}\n".encode() + b"X" + struct.pack("<I", len(text)) + text + b"\x85R"


def state_dict(code: bytes) -> bytes:
    return b"\x80\x02}X\x0a\x00\x00\x00state_dict" + code + b"s."


def as_zip(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in {"data.pkl": content, "byteorder": b"little", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def as_legacy(content: bytes) -> bytes:
    magic, system = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps({"little_endian": True}, 2)
    return magic + pickle.dumps(1001, 2) + system + content + pickle.dumps([], 2)


def as_tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": as_zip,
    "legacy": as_legacy,
    "bare": lambda content: content,
    "protocol 4": lambda content: b"\x80\x04" + content[2:],
    "last pickle": lambda content: as_legacy(pickle.dumps({}, 2))[: -len(pickle.dumps([], 2))] + content,
}
EFFECTS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pty.spawn"}
effects_seen: list[str] | None = None  # an audit hook stays for good, so it only records while this is a list


def _record(event: str, _: object) -> None:
    if effects_seen is not None and event in EFFECTS:
        effects_seen.append(event)


sys.addaudithook(_record)


@pytest.fixture
def nothing_runs() -> Iterator[None]:
    """Fail if a process is started, a connection made or a module imported."""
    global effects_seen
    before = set(sys.modules)
    effects_seen = []
    yield
    seen, effects_seen = effects_seen, None
    assert seen == []
    named = {name.rpartition(".")[0] for name in CALLS} | {"antigravity"}
    assert named & (set(sys.modules) - before) == set()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", CALLS)
def test_a_pickle_that_names_code_is_refused_and_the_names_listed(tmp_path: Path, name: str, container: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "w.pth"
    path.write_bytes(CONTAINERS[container](state_dict(call(name, CALLS[name].format(canary=canary)))))
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert f"names code which weights do not need: {name}." in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


TOUCH = b"X\x10\x00\x00\x00touch ./canary_x\x85R"
OTHER_OPCODES = {
    "instance": b"(S'touch ./canary_x'\nios\nsystem\n",
    "object": b"(cos\nsystem\nS'touch ./canary_x'\no",
    "stack global": b"\x8c\x02os\x8c\x06system\x93" + TOUCH,
    "stack global that hides behind a safe name": (
        b"\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x8c\x0bcollections\x8c\x0bOrderedDict00\x93" + TOUCH
    ),
    "extension": b"\x82\x01" + TOUCH,
    "chain of attributes": b"cbuiltins\ngetattr\n"
    + call("builtins.__import__", "os")
    + b"X\x06\x00\x00\x00system\x86R"
    + TOUCH,
    "state of an allowed class": b"cargparse\nNamespace\n)R}X\x01\x00\x00\x00x"
    + call("os.system", "touch ./canary_x")
    + b"sb",
}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("opcode", OTHER_OPCODES)
def test_no_opcode_reaches_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opcode: str, container: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(CONTAINERS[container](state_dict(OTHER_OPCODES[opcode])))
    with pytest.raises(CheckpointError, match="names code which weights do not need"):
        read_tensors("w.pth")
    assert [item.name for item in tmp_path.iterdir()] == ["w.pth"]


def test_a_tar_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(as_tar(state_dict(call("os.system", f"touch {tmp_path}/canary"))))
    with pytest.raises(CheckpointError, match="is a tar archive"):
        read_tensors(tmp_path / "w.pth")
    assert [item.name for item in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_what_may_stand_beside_weights_is_never_made(tmp_path: Path, name: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "w.pth"
    path.write_bytes(as_zip(state_dict(call(name, str(canary)))))
    with pytest.raises(CheckpointError, match=r"holds no weights: none of its entries \('state_dict'\)"):
        read_tensors(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_zip_bomb_is_not_inflated(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 23)}, buffer)
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for record in source.infolist():
            bomb.writestr(record.filename, source.read(record))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"is compressed \([\d,]+ bytes that become [\d,]+\)"):
        read_tensors(path)


def zip_with_two_cases() -> bytes:
    """Torch looks records up without regard to case, Python's zipfile with."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", state_dict(b"}"))
        archive.writestr("archive/DATA.PKL", state_dict(call("os.system", "true")))
    return buffer.getvalue()


def zip_with_shared_record() -> bytes:
    """Two directory entries for the same bytes: the sum of the sizes exceeds the file."""
    content = bytearray(as_zip(state_dict(b"}") + bytes(5000)))
    start = content.rindex(b"PK\x01\x02", 0, content.index(b"PK\x05\x06"))
    offset = content.index(b"PK\x01\x02")
    content[start + 20 : start + 28] = content[offset + 20 : offset + 28]  # sizes of the first record
    return bytes(content)


AMBIGUOUS = {
    "appended to another zip": as_zip(state_dict(b"}")) + as_zip(state_dict(b"}")),
    "behind a prefix": b"PK\x03\x04" + bytes(60) + as_zip(state_dict(b"}")),
    "before other bytes": as_zip(state_dict(b"}")) + b"tail",
    "records that overlap": zip_with_shared_record(),
    "names that differ in case": zip_with_two_cases(),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_a_zip_that_readers_may_see_differently_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "w.pth").write_bytes(AMBIGUOUS[kind])
    with pytest.raises(CheckpointError, match=r"disagree|damaged|more than the|in doubt"):
        read_tensors(tmp_path / "w.pth")


def test_sizes_that_lie_allocate_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for legacy in (False, True):
        torch.save({"a": torch.zeros(200)}, path, _use_new_zipfile_serialization=not legacy)
        content = path.read_bytes()
        assert content.count(b"K\xc8") == 2  # the number of values: of the storage, then of the tensor
        huge = b"\x8a\x06" + (1 << 44).to_bytes(6, "little")
        if not legacy:
            with zipfile.ZipFile(path) as archive:
                content = as_zip(archive.read("w/data.pkl").replace(b"K\xc8", huge))
        path.write_bytes(content.replace(b"K\xc8", huge))
        with pytest.raises(CheckpointError):
            read_tensors(path)
