"""fp16 and bf16: within their limits, in the precision that the file says, or refused by the name of the layer."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.difference import relative_error
from hybridvit.errors import ExportError, UsageError
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.export.spec import Precision
from hybridvit.export.targets import openvino as openvino_target

SIZE = (64, 64)
BY_DAY = {("fastvit_debug", "openvino", "bf16"), ("fastervit_debug", "onnx", "fp16")}
CASES = [
    pytest.param(
        (name, target, precision),
        id=f"{name}-{target}-{precision}",
        marks=() if (name, target, precision) in BY_DAY else pytest.mark.nightly,
    )
    for target, precision in (("onnx", "fp16"), ("openvino", "fp16"), ("openvino", "bf16"))
    for name in ("fastvit_debug", "fastervit_debug")
]
LIMITS = {"fp16": 5e-3, "bf16": 5e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Half:
    """A model, and its file of fewer bits."""

    model: nn.Module
    report: ExportReport
    precision: Precision


@pytest.fixture(scope="module", params=CASES)
def half(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Half:
    name, target, precision = request.param
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model(name, num_classes=10))
    path = tmp_path_factory.mktemp(target) / f"m{EXPORTERS[target].suffix}"
    options = ExportOptions(precision=precision, image_size=SIZE)
    return Half(model=model, report=export(model, path, to=target, options=options), precision=precision)


def computed_in(precision: Precision) -> str:
    """What OpenVINO computes that precision in on this CPU. Asked for f16, it takes bf16 where only that is there."""
    import openvino

    hint, capability = {"fp32": ("f32", "FP32"), "fp16": ("f16", "FP16"), "bf16": ("bf16", "BF16")}[precision]
    return hint if capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def test_both_families_stay_within_the_limit_between_fp32_ends(half: Half) -> None:
    limit = LIMITS[half.precision]
    assert 1e-5 < half.report.parity.max_error <= limit == half.report.parity.limit
    runner = load_runner(half.report.path)
    assert runner.spec.precision == half.precision
    images = np.random.default_rng(1).standard_normal((3, 3, *SIZE), dtype=np.float32)
    with torch.no_grad():
        expected = half.model(torch.from_numpy(images)).numpy()
    answer = runner(images)["logits"]
    assert answer.dtype == np.float32
    assert 0 < relative_error(answer, expected) <= limit
    if half.report.target == "openvino":
        assert runner.computes_in == computed_in(half.precision)


def test_what_the_file_was_compared_with_is_inside(half: Half) -> None:
    stored = json.loads(load_runner(half.report.path).metadata["hybridvit.parity"])
    assert 0 < stored["max_error"] <= stored["limit"] == LIMITS[half.precision]


@pytest.mark.parametrize("half", [("fastervit_debug", "onnx", "fp16")], indirect=True, ids=str)
def test_weights_in_fp16_take_two_bytes(half: Half) -> None:
    weights = [onnx.numpy_helper.to_array(each) for each in onnx.load(half.report.path).graph.initializer]
    kinds = {each.dtype for each in weights if each.dtype.kind == "f" and each.size > 1}
    assert kinds == {np.dtype(np.float16)}


@pytest.mark.parametrize("half", [("fastvit_debug", "openvino", "bf16")], indirect=True, ids=str)
def test_without_instructions_openvino_computes_in_fp32_and_says_so(
    half: Half, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(openvino_target.HINTS, "bf16", ("bf16", "NO_CPU_HAS_THIS"))
    with caplog.at_level(logging.WARNING):
        assert load_runner(half.report.path).computes_in == "f32"
    assert "no instructions for bf16: the file is computed in fp32" in caplog.text


@pytest.mark.nightly
@pytest.mark.parametrize(("target", "suffix"), [("onnx", ".onnx"), ("openvino", ".bin")])
def test_fp16_halves_the_weights(debug_model: nn.Module, target: str, suffix: str, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        path = tmp_path / precision / f"m{EXPORTERS[target].suffix}"
        path.parent.mkdir()
        export(debug_model, path, to=target, options=ExportOptions(precision=precision))
        sizes[precision] = path.with_suffix(suffix).stat().st_size
    num_weights = sum(each.numel() for each in hybridvit.fold(debug_model).parameters())
    assert sizes["fp32"] - sizes["fp16"] > 1.8 * num_weights  # bytes


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_computes_in_what_the_file_says_and_the_cpu_has(
    debug_model: nn.Module, precision: Precision, tmp_path: Path
) -> None:
    path = tmp_path / "m.xml"
    export(debug_model, path, to="openvino", options=ExportOptions(precision=precision))
    assert load_runner(path).computes_in == computed_in(precision)


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
