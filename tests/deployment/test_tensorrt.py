"""TensorRT without a GPU: what is missing is named, with the way over ONNX; nothing is written."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import hybridvit
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets import tensorrt
from hybridvit.export.targets.tensorrt import TensorRTExporter, onnx_command, shapes, trtexec_command


def test_without_tensorrt_the_way_over_onnx_is_told_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as told:
        export(
            hybridvit.create_model("fastvit_debug").eval(),
            tmp_path / "m.engine",
            to="tensorrt",
            options=ExportOptions(precision="fp16"),
        )
    text = str(told.value)
    assert 'tensorrt is missing here (pip install "hybridvit[tensorrt]")' in text
    assert "`hybridvit export CHECKPOINT --to onnx --precision fp16 --image_size 32x32`, then" in text
    assert (
        "`trtexec --onnx=fastvit_debug.onnx --saveEngine=fastvit_debug.engine --stronglyTyped --noTF32 "
        "--minShapes=images:1x3x32x32 --optShapes=images:8x3x32x32 --maxShapes=images:64x3x32x32`" in text
    )
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no NVIDIA GPU can be used here"):
        export(hybridvit.create_model("fastvit_debug").eval(), tmp_path / "m.engine", to="tensorrt")
    with pytest.raises(UsageError, match=r"m\.engine cannot run here: no NVIDIA GPU"):
        TensorRTExporter().load_runner(tmp_path / "m.engine")


def test_commands_say_what_the_spec_says() -> None:
    fixed = GraphSpec(image_size=(224, 256), batch=4, pixels="uint8", top_k=5)
    assert trtexec_command("m", fixed) == "trtexec --onnx=m.onnx --saveEngine=m.engine --stronglyTyped --noTF32"
    assert onnx_command(fixed) == (
        "hybridvit export CHECKPOINT --to onnx --precision fp32 --batch 4 --image_size 224x256 --uint8 --top_k 5"
    )
    dynamic = GraphSpec(image_size=(256, 256), range_px=(32, 2048))
    assert shapes(dynamic) == ((1, 3, 32, 32), (8, 3, 256, 256), (64, 3, 2048, 2048))
    assert "--maxShapes=images:64x3x2048x2048" in trtexec_command("m", dynamic)
    assert "--dynamic_size" in onnx_command(dynamic)


def test_an_engine_and_its_metadata_are_tied_together(tmp_path: Path) -> None:
    path, exporter = tmp_path / "m.engine", TensorRTExporter()
    path.write_bytes(b"engine")
    exporter.annotate(path, {"hybridvit.card": "{}", "hybridvit.sha256": "0" * 64})
    exporter.seal(path)
    written = json.loads((tmp_path / "m.engine.json").read_text(encoding="utf-8"))
    assert written == {"hybridvit.card": "{}", "hybridvit.sha256": hashlib.sha256(b"engine").hexdigest()}
    (tmp_path / "m.engine.json").unlink()
    with pytest.raises(CheckpointError, match=r"two files, m\.engine and m\.engine\.json, side by side"):
        exporter.seal(path)
