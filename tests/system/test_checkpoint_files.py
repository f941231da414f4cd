"""What read_tensors accepts, what it says of everything else."""

import argparse
import gzip
import io
import json
import logging
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from hybridvit.checkpoints import read_tensors
from hybridvit.errors import CheckpointError

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.tensor(7)}


def write(path: Path, value: object, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


def test_every_format_gives_the_same_tensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "safetensors", metadata={"made_by": "test"})
    write(tmp_path / "zip", WEIGHTS)
    write(tmp_path / "legacy", WEIGHTS, _use_new_zipfile_serialization=False)
    for name in ("safetensors", "zip", "legacy"):
        file = read_tensors(tmp_path / name)
        assert set(file.tensors) == set(WEIGHTS)
        assert all(torch.equal(file.tensors[key], WEIGHTS[key]) for key in WEIGHTS)
        assert file.weight_set == ""
    assert read_tensors(str(tmp_path / "safetensors")).metadata == {"made_by": "test"}


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, wrapper: str) -> None:
    path = write(tmp_path / "m.pth", {"state_dict": {wrapper + name: value for name, value in WEIGHTS.items()}})
    assert set(read_tensors(path).tensors) == set(WEIGHTS)


def test_a_training_checkpoint_with_settings_and_optimizer_loads(tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3), "step": 4}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {"epoch": 3, "arch": "t8", "state_dict": OrderedDict(WEIGHTS), "optimizer": optimizer}
    path = write(tmp_path / "m.pth.tar", content | {"args": argparse.Namespace(lr=0.1), "amp_scaler": {"scale": 2.0}})
    file = read_tensors(path)
    assert file.weight_set == "state_dict"
    assert set(file.tensors) == set(WEIGHTS)


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema"])
def test_averaged_weights_win_and_the_choice_is_said(
    tmp_path: Path, averaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"model": WEIGHTS, "state_dict": WEIGHTS, averaged: {"a.weight": torch.full((3, 4), 5.0)}}
    with caplog.at_level(logging.WARNING):
        file = read_tensors(write(tmp_path / "m.pth", content))
    assert file.weight_set == averaged
    assert file.tensors["a.weight"].eq(5).all()
    assert f"using the averaged (EMA) weights in '{averaged}'" in caplog.text


def tar_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("weights.pth")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def header_only(header: dict[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
GOOD = save(WEIGHTS)
MISTAKES = {
    "empty": (b"", "is empty (0 bytes)"),
    "lfs pointer": (LFS, "is a Git LFS pointer, not weights. Fetch the real file with `git lfs pull`"),
    "web page": (b"\n <!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "xml error": (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', "is a web page"),
    "text": (b"404: Not Found\n", "is text ('404: Not Found"),
    "old text pickle": (b"cposix\nsystem\n(S'true'\ntR.", "is text"),
    "unknown": (bytes(range(200, 256)) * 4, "is of no known weight format"),
    "zeros": (bytes(1000), "is of no known weight format"),
    "gzip": (gzip.compress(GOOD), "compressed with gzip. Unpack it"),
    "tar": (tar_of(GOOD), "is a tar archive. Unpack it"),
    "numpy": (b"\x93NUMPY\x01\x00", "is a NumPy array"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is an image"),
    "cut safetensors": (GOOD[:-5], "is damaged safetensors"),
    "cut header": (GOOD[:30], "is truncated: its header needs"),
    "huge header": (struct.pack("<Q", 1 << 60) + b"{}", "declares a header of"),
    "no tensors": (header_only({}), "holds no tensors"),
    "shape lies": (header_only({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}), "is damaged"),
    "other zip": (zip_of({"word/document.xml": b"<x/>"}), "not one that torch.save writes"),
    "torchscript": (zip_of({"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02)."}), "is a TorchScript model"),
    "torchscript's code is compressed": (
        zip_of({"m/code/__torch__.py": bytes(999), "m/data.pkl": b"\x80\x02}."}, zipfile.ZIP_DEFLATED),
        "is a TorchScript model",
    ),
    "torch.export": (zip_of({"m/models/model.json": b"{}", "m/version": b"1"}), "is a program that torch.export saved"),
    "other zip, compressed": (
        zip_of({"word/document.xml": bytes(999)}, zipfile.ZIP_DEFLATED),
        "not one that torch.save",
    ),
    "deflated": (zip_of({"m/data.pkl": bytes(9999)}, zipfile.ZIP_DEFLATED), "'m/data.pkl' is compressed"),
    "escaping": (zip_of({"m/data.pkl": b"\x80\x02}.", "m/../../x": b""}), "points outside of the archive"),
    "absolute": (zip_of({"m/data.pkl": b"\x80\x02}.", "/etc/x": b""}), "points outside of the archive"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_weights_is_named(tmp_path: Path, mistake: str) -> None:
    content, message = MISTAKES[mistake]
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_path_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_tensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(GOOD)
    with pytest.raises(CheckpointError, match=r"files inside: model\.safetensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds one list"),
        ({"epoch": 3, "config": {}}, "none of its entries ('epoch', 'config')"),
        ({"state_dict": {"a": "text"}}, "none of its entries ('state_dict')"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "code which weights do not need: torch.ComplexFloatStorage"),
        ({"a": torch.ones(1).expand(1000, 1000)}, "'a' has shape (1000, 1000), more than the file stores"),
        ({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, "1 of 2 values of 'b' are NaN or infinite"),
        ({"a": torch.tensor([float("-inf")], dtype=torch.float16)}, "1 of 1 values of 'a' are NaN or infinite"),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_tensors(write(tmp_path / "w.pth", content))
    assert message in str(caught.value)


def test_numbers_of_another_kind_are_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"'a' is a tensor of torch\.float8"):
        read_tensors(tmp_path / "w.safetensors")


def test_tied_weights_may_share_their_storage(tmp_path: Path) -> None:
    shared = torch.ones(3)
    file = read_tensors(write(tmp_path / "w.pth", {"a": shared, "b": shared}))
    assert torch.equal(file.tensors["a"], file.tensors["b"])
