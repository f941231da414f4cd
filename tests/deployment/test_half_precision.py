"""fp16 and bf16: within their limits, in the precision that the file says, or refused by the name of the layer."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.errors import ExportError, UsageError
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.parity import relative_error
from hybridvit.export.pipeline import export
from hybridvit.export.targets import openvino as openvino_target

SIZE = (64, 64)
BY_DAY = {("fastvit_debug", "openvino", "bf16"), ("fastervit_debug", "onnx", "fp16")}
CASES = [
    pytest.param(
        *(name, target, precision),
        marks=() if (name, target, precision) in BY_DAY else pytest.mark.nightly,
    )
    for target, precision in (("onnx", "fp16"), ("openvino", "fp16"), ("openvino", "bf16"))
    for name in ("fastvit_debug", "fastervit_debug")
]
LIMITS = {"fp16": 5e-3, "bf16": 5e-2}


@pytest.mark.parametrize(("any_debug_model", "target", "precision"), CASES, indirect=["any_debug_model"])
def test_both_families_stay_within_the_limit_between_fp32_ends(any_debug_model, target, precision, tmp_path) -> None:
    path = tmp_path / f"m{EXPORTERS[target].suffix}"
    report = export(any_debug_model, path, to=target, options=ExportOptions(precision=precision, image_size=SIZE))
    assert 1e-5 < report.parity.max_error <= LIMITS[precision] == report.parity.limit
    runner = load_runner(path)
    assert runner.spec.precision == precision
    images = np.random.default_rng(1).standard_normal((3, 3, *SIZE), dtype=np.float32)
    with torch.no_grad():
        expected = any_debug_model(torch.from_numpy(images)).numpy()
    answer = runner(images)["logits"]
    assert answer.dtype == np.float32
    assert 0 < relative_error(answer, expected) <= LIMITS[precision]


@pytest.mark.parametrize(
    ("target", "suffix"), [("onnx", ".onnx"), pytest.param("openvino", ".bin", marks=pytest.mark.nightly)]
)
def test_fp16_halves_the_weights(debug_model: nn.Module, target: str, suffix: str, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        path = tmp_path / precision / f"m{EXPORTERS[target].suffix}"
        path.parent.mkdir()
        export(debug_model, path, to=target, options=ExportOptions(precision=precision))
        sizes[precision] = path.with_suffix(suffix).stat().st_size
    num_weights = sum(each.numel() for each in hybridvit.fold(debug_model).parameters())
    assert sizes["fp32"] - sizes["fp16"] > 1.8 * num_weights  # bytes


def test_openvino_computes_in_what_the_file_says_and_the_cpu_has(debug_model, tmp_path, monkeypatch, caplog) -> None:
    """Asked for f16, OpenVINO takes bf16 on CPUs that have only that."""
    import openvino

    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, hint, capability in (("fp32", "f32", "FP32"), ("fp16", "f16", "FP16"), ("bf16", "bf16", "BF16")):
        path = tmp_path / f"{precision}.xml"
        export(debug_model, path, to="openvino", options=ExportOptions(precision=precision))
        assert load_runner(path).computes_in == (hint if capability in has else "f32")
    monkeypatch.setitem(openvino_target.HINTS, "bf16", ("bf16", "NO_CPU_HAS_THIS"))
    with caplog.at_level(logging.WARNING):
        runner = load_runner(tmp_path / "bf16.xml")
    assert runner.computes_in == "f32"
    assert "no instructions for bf16: the file is computed in fp32" in caplog.text


def test_onnx_has_no_bf16(debug_model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'onnx' has no bf16: it writes fp32, fp16, int8. Targets with bf16: openvino"
    ):
        export(debug_model, tmp_path / "m.onnx", options=ExportOptions(precision="bf16"))


def test_a_weight_that_folding_makes_too_large_is_named(debug_model: nn.Module, tmp_path: Path) -> None:
    """A BatchNorm of little variance, whose large gain the next layer takes back."""
    with torch.no_grad():
        norm = debug_model.stages[1].blocks[0].ffn.depthwise.kxk.norm
        norm.weight[3] *= 1e7
    with pytest.raises(
        ExportError, match=r"up to 65504, .*: stages\.1\.blocks\.0\.ffn\.depthwise\.weight \(\d\.\d+e\+\d"
    ):
        export(debug_model, tmp_path / "m.onnx", options=ExportOptions(precision="fp16"))
    assert list(tmp_path.iterdir()) == []


def test_a_sum_that_is_too_large_is_named_by_its_block_though_every_layer_fits(tmp_path: Path) -> None:
    model = hybridvit.fold(trained_like(hybridvit.create_model("fastvit_debug", num_classes=5)))
    with torch.no_grad():
        block = model.stages[2].blocks[0]
        block.mixer.weight.zero_()
        block.mixer.bias.fill_(5e4)
        block.ffn.project.weight.zero_()
        block.ffn.project.bias.fill_(5e4)
    with pytest.raises(ExportError, match=r"but these exceed it: stages\.2\.blocks\.0\.ffn \(1e\+05\)"):
        export(model, tmp_path / "m.onnx", options=ExportOptions(precision="fp16"))


def test_what_the_file_was_compared_with_is_inside(debug_model: nn.Module, tmp_path: Path) -> None:
    export(debug_model, tmp_path / "m.onnx", options=ExportOptions(precision="fp16"))
    stored = json.loads(load_runner(tmp_path / "m.onnx").metadata["hybridvit.parity"])
    assert 0 < stored["max_error"] <= stored["limit"] == 5e-3
