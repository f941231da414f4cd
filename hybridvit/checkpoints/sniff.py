"""What a file is, and whether it is safe to hand to a parser: decided from its bytes, before any tensor exists.

Torch is not needed here. Every doubt is a `CheckpointError`, so nothing that fails a check below is ever unpickled.
"""

import codecs
import io
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from hybridvit.errors import CheckpointError, some

Format = Literal["safetensors", "zip", "pickle"]
"""safetensors; zip: what torch.save writes today; pickle: what torch.save wrote before version 1.6."""

WEIGHT_ENDINGS = (".safetensors", ".pt", ".pth", ".tar", ".ckpt", ".bin", ".index.json")
"""How files of weights are called. What they are is decided by their content alone."""

PICKLE_PROTOCOLS = tuple(bytes([0x80, version]) for version in range(2, 6))
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format

# The first bytes of files that are often mistaken for weights, and what to do about each.
MISTAKEN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not weights. Fetch the real file with `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip. Unpack it first"),
    (b"BZh", "compressed with bzip2. Unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz. Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd. Unpack it first"),
    (b"\x89HDF", "an HDF5 file. Export the weights from its own library as safetensors"),
    (b"\x93NUMPY", "a NumPy array. Save the weights as safetensors"),
    (b"\x89PNG", "an image. Pass the weights as the checkpoint and images as input"),
    (b"\xff\xd8\xff", "an image. Pass the weights as the checkpoint and images as input"),
    (b"%PDF", "a PDF document. Pass a .safetensors, .pt or .pth file"),
)

# What training scripts store beside the weights: scores, paths, curves. None of it is ever made, nor its library
# imported: the reader puts a stand-in without effect in the place of each.
STAND_INS = frozenset(
    {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
    | {"numpy.dtype", "numpy.ndarray", "mmengine.logging.history_buffer.HistoryBuffer"}
    | {
        f"pathlib.{module}{pure}{system}Path"
        for module in ("", "_local.")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    }
)

# Everything a pickled state dict needs, and argparse.Namespace for the settings that training scripts store beside it.
# Shorter than the list of torch.load(weights_only=True): no bytearray, no tensor subclass.
ALLOWED_GLOBALS = STAND_INS | frozenset(
    {"collections.OrderedDict", "argparse.Namespace", "builtins.set", "__builtin__.set", "_codecs.encode"}
    | {"torch.Size", "torch.device", "torch.nn.parameter.Parameter", "torch.storage.UntypedStorage"}
    | {f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "parameter")}
    | {f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16")}
    | {f"torch.{kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")}
    | {f"torch.{kind}" for kind in ("float16", "float32", "float64", "bfloat16")}
    | {f"torch.{kind}" for kind in ("int8", "int16", "int32", "int64", "uint8", "bool")}
)


def file_format(path: Path) -> Format:
    """The format of the file at `path` by its first bytes and its length, never by its name.

    Raises CheckpointError for a missing path, a folder, an empty or cut-off file and anything that holds no weights.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, but weights are one file. {_in_folder(path)}")
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist. Check the path; weights are .safetensors, .pt, .pth or .ckpt files."
        )
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file. Copy the weights to disk and pass that file.")
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    return _format_of(path, head, path.stat().st_size)


def _in_folder(folder: Path) -> str:
    """What to do with a folder that is no set of shards."""
    if (folder / ".metadata").is_file() and next(folder.glob("*.distcp"), None):
        return (
            "It is a distributed checkpoint. Make one file of it with `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pt`, and pass that."
        )
    inside = sorted(item.name for item in folder.iterdir() if item.name.endswith(WEIGHT_ENDINGS))
    return f"Pass one of the files inside: {some(inside)}." if inside else "It holds no weights either."


def _format_of(path: Path, head: bytes, size: int) -> Format:
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes): its download or copy failed. Fetch it again.")
    for magic, meaning in MISTAKEN:
        if head.startswith(magic):
            raise CheckpointError(f"{path} is {meaning}.")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(PICKLE_PROTOCOLS):
        return "pickle"
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar archive. Unpack it and pass the weight file inside.")
    if head[8:9] == b"{":
        _check_safetensors_length(path, head, size)
        return "safetensors"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        raise CheckpointError(
            f"{path} is a web page (HTML or XML), not weights: the address it came from answered with a page, "
            "often a log-in or an error. Fetch the file itself again."
        )
    if _is_text(head):
        start = " ".join(text[:40].decode("utf-8", "replace").split())
        raise CheckpointError(f"{path} is text ('{start}…'), not weights. Pass a .safetensors, .pt or .pth file.")
    raise CheckpointError(
        f"{path} is of no known weight format (it starts with {head[:8].hex(' ')}), or it is damaged. "
        "Pass a .safetensors, .pt or .pth file, or fetch it again."
    )


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the last character may be cut in two
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)


def _check_safetensors_length(path: Path, head: bytes, size: int) -> None:
    (header_bytes,) = struct.unpack("<Q", head[:8])
    if header_bytes > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} declares a header of {header_bytes:,} bytes; safetensors allows {MAX_HEADER_BYTES:,}. "
            "The file is damaged or hostile. Fetch it again from its source."
        )
    if 8 + header_bytes > size:
        raise CheckpointError(
            f"{path} is truncated: its header needs {8 + header_bytes:,} bytes and the file has {size:,}. "
            "Fetch it again."
        )


def check_zip(path: Path) -> None:
    """Refuse a zip that could expand, escape or mean two things, and one whose pickle names a foreign global.

    torch.load inflates compressed records: 262 kB become 256 MB. torch.save stores records as they are, so only that
    is accepted. Raises CheckpointError.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            records = archive.infolist()
            pickles = _pickles(path, [record.filename for record in records])
            _check_records(path, records, size)
            if _directory_offset(stream, size) != archive.start_dir:
                raise CheckpointError(f"{path} has two zip directories that disagree; it is damaged or hostile.")
            check_pickle(path, io.BytesIO(archive.read(pickles[0])))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, struct.error) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is truncated or damaged ({error}). Fetch or save it again.") from error


def _pickles(path: Path, names: list[str]) -> list[str]:
    """The one record that holds the names of a state dict. Raises CheckpointError for archives of another kind."""
    inside = [name.partition("/")[2] for name in names]
    kind = ""
    if any(name == "constants.pkl" or name.startswith("code/") for name in inside):
        kind = "a TorchScript model: its program is in it, and may run code"
    elif any(name.startswith("models/") and name.endswith(".json") for name in inside):
        kind = "a program that torch.export saved"
    elif inside.count("data.pkl") != 1:
        kind = "a zip archive, but not one that torch.save writes"
    if kind:
        raise CheckpointError(f"{path} is {kind}. Pass the weights that torch.save(model.state_dict(), path) wrote.")
    return [name for name in names if name.partition("/")[2] == "data.pkl"]


def _check_records(path: Path, records: list[zipfile.ZipInfo], size: int) -> None:
    names = [record.filename for record in records]
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise CheckpointError(
                f"{path}: the record '{record.filename}' is compressed ({record.compress_size:,} bytes that become "
                f"{record.file_size:,}). torch.save never compresses, a zip bomb does. Unpack it and save it with "
                "torch.save, if you trust its source."
            )
        if record.filename.startswith("/") or "\\" in record.filename or ".." in record.filename.split("/"):
            raise CheckpointError(f"{path}: the record '{record.filename}' points outside of the archive. Refused.")
        if record.flag_bits & 1:
            raise CheckpointError(f"{path}: the record '{record.filename}' is encrypted. Decrypt the file first.")
    if len({name.lower() for name in names}) != len(names):  # torch looks names up without regard to case
        raise CheckpointError(f"{path} holds two records of one name, so its meaning is in doubt. Refused.")
    total = sum(record.file_size for record in records)
    if total > size:
        raise CheckpointError(
            f"{path}: its records add up to {total:,} bytes, more than the {size:,} of the file. Refused as hostile."
        )


def _directory_offset(stream: BinaryIO, size: int) -> int:
    """Where the zip's last bytes say the directory starts; readers that look elsewhere would see other records."""
    stream.seek(max(size - 42, 0))
    tail = stream.read(42)
    signature, *_, directory, comment = struct.unpack("<4s4H2LH", tail[-22:])
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("its end is missing")
    if not tail.startswith(b"PK\x06\x07"):
        return int(directory)
    (record,) = struct.unpack("<8xQ4x", tail[:20])
    stream.seek(record)
    end = stream.read(56)
    if len(end) < 56 or not end.startswith(b"PK\x06\x06"):
        raise zipfile.BadZipFile("its end is damaged")
    (directory_64,) = struct.unpack("<48xQ", end)
    if directory not in (directory_64, 0xFFFFFFFF):
        raise zipfile.BadZipFile("its ends disagree")
    return int(directory_64)


def check_pickle(path: Path, stream: BinaryIO, num_pickles: int = 1) -> None:
    """Refuse the pickles at the start of `stream` if they name anything a state dict does not need. Executes nothing.

    Before version 1.6 torch.save wrote five (magic number, version, system, weights, keys), then raw data. Raises
    CheckpointError that lists the names.
    """
    found: set[str] = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged string makes pickletools warn of invalid escapes
            for _ in range(num_pickles):
                found |= set(_globals(stream))
                if not stream.read(1):
                    break
                stream.seek(-1, io.SEEK_CUR)
    except (ValueError, EOFError, OverflowError, MemoryError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}). Fetch or save it again.") from error
    refused = sorted(found - ALLOWED_GLOBALS)
    if refused:
        raise CheckpointError(
            f"{path} is a pickle that names code which weights do not need: {some(refused, 8)}. Unpickling could run "
            "it, so the file was not opened. Ask its author for safetensors, or for torch.save(model.state_dict(), "
            "path)."
        )


def _globals(stream: BinaryIO) -> Iterator[str]:
    """The dotted names of all globals in the pickle at the position of `stream`."""
    strings: list[str] = ["?", "?"]
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            # Its operands may come from anywhere on the stack, and torch.save never writes it: refused in any case.
            yield f"{strings[-2]}.{strings[-1]} (by STACK_GLOBAL)"
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            yield f"copyreg extension {argument}"
        elif isinstance(argument, str):
            strings.append(argument)
