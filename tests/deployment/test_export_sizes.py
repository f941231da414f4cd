"""Files whose height and width are dynamic, and FasterViT's with its positions as constants, for every target."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image
from torch import nn

import hybridvit
from hybridvit.cli import main
from hybridvit.difference import relative_error
from hybridvit.errors import UsageError
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export

SMALLEST = {"fastvit_debug": 32, "fastervit_debug": 49}  # of the latter: one more than its window of 3, at stride 16
SIZES = {"fastvit_debug": [(32, 35), (97, 64)], "fastervit_debug": [(49, 50), (64, 64), (101, 57), (224, 320)]}


def made(name: str) -> nn.Module:
    return trained_like(hybridvit.create_model(name, num_classes=5))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((name, to), id=f"{name}-{to}", marks=marks)
        for name, to, marks in (
            ("fastvit_debug", "onnx", ()),
            ("fastervit_debug", "openvino", (pytest.mark.nightly,)),
            ("fastvit_debug", "openvino", (pytest.mark.nightly,)),
            ("fastervit_debug", "onnx", (pytest.mark.nightly,)),
        )
    ],
)
def dynamic(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, nn.Module, ExportReport]:
    name, to = request.param
    model = made(name)
    path = tmp_path_factory.mktemp("dynamic") / f"m{EXPORTERS[to].suffix}"
    return name, model, export(model, path, to=to, options=ExportOptions(dynamic_size=True))


def test_a_dynamic_file_answers_as_pytorch_at_every_size(dynamic: tuple[str, nn.Module, ExportReport]) -> None:
    name, model, report = dynamic
    runner = load_runner(report.path)
    for num, size in zip((1, 2, 5, 2), SIZES[name], strict=False):
        images = torch.randn(num, 3, *size)
        with torch.no_grad():
            assert relative_error(runner(images)["logits"], model(images).numpy()) <= 1e-5, size


def test_the_range_is_stated_and_other_sizes_refused(dynamic: tuple[str, nn.Module, ExportReport]) -> None:
    name, _, report = dynamic
    smallest = SMALLEST[name]
    runner = load_runner(report.path)
    assert runner.spec.range_px == report.spec.range_px == (smallest, 2048)
    assert runner.card.fixed_size is None
    for shape in ((1, 3, smallest - 1, 64), (1, 3, 64, 2049), (1, 4, 64, 64)):
        with pytest.raises(UsageError, match=rf"takes \(batch, 3, height, width\) with both sides from {smallest} to"):
            runner(np.zeros(shape, np.float32))


def test_it_was_compared_at_several_sizes(dynamic: tuple[str, nn.Module, ExportReport]) -> None:
    name, _, report = dynamic
    sizes = report.parity.image_sizes
    assert (SMALLEST[name], SMALLEST[name]) in sizes
    assert any(height % 2 and height != width for height, width in sizes)
    assert max(sizes) > (2 * SMALLEST[name], 0)
    assert 0 < report.parity.max_error <= 1e-5


@pytest.mark.nightly  # of the square size it is tested with every target (test_every_target.py)
@pytest.mark.parametrize(
    ("to", "size"),
    [
        ("onnx", (64, 96)),
        ("openvino", (40, 33)),  # a single window: no carriers
        ("onnx", (40, 33)),
        ("openvino", (64, 96)),
    ],
)
def test_a_fixed_size_of_fastervit_exports_its_positions_as_constants(to: str, size: tuple, tmp_path: Path) -> None:
    model = made("fastervit_debug")
    report = export(model, tmp_path / f"m{EXPORTERS[to].suffix}", to=to, options=ExportOptions(image_size=size))
    runner = load_runner(report.path)
    assert runner.card.fixed_size == runner.card.preprocessing.image_size == size
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        assert relative_error(runner(images)["logits"], model(images).numpy()) <= 1e-5


@pytest.mark.parametrize(
    ("name", "dynamic_size", "text"),
    [
        (
            "fastervit_debug",
            (32, 64),
            r"32 to 64 pixels, but one file of this fastervit_debug can take 49 to 2048: below",
        ),
        (
            "fastvit_debug",
            (32, 4096),
            r"32 to 4096 pixels, but one file of this fastvit_debug can take 32 to 2048\. St",
        ),
        ("fastvit_debug", (64, 64), r"must be True or \(smallest, largest\) side in whole pixels\. Use \(32, 2048\)"),
        ("fastvit_debug", (64.0, 96), r"must be True or \(smallest, largest\) side in whole pixels"),
    ],
)
def test_a_range_that_is_none_is_refused(name: str, dynamic_size: tuple, text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=text):
        export(made(name), tmp_path / "m.onnx", options=ExportOptions(dynamic_size=dynamic_size))
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_constants_has_no_dynamic_size(tmp_path: Path) -> None:
    fixed = hybridvit.fold(made("fastervit_debug"), image_size=64)
    with pytest.raises(
        UsageError, match="dynamic_size is set, but the positions of this fastervit_debug are constants"
    ):
        export(fixed, tmp_path / "m.onnx", options=ExportOptions(dynamic_size=True))
    with pytest.raises(UsageError, match="constants for 64x64"):
        export(fixed, tmp_path / "m.onnx", options=ExportOptions(image_size=(96, 96)))


@pytest.mark.nightly
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_command_line_exports_and_predicts(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hybridvit.save_checkpoint(made("fastvit_debug"), tmp_path / "m.safetensors")
    Image.new("RGB", (40, 50), (200, 30, 30)).save(tmp_path / "photo.png")
    assert main(["export", str(tmp_path / "m.safetensors"), "--to", to, "--dynamic_size"]) == 0
    assert "batch x 3 x height x width, each side from 32 to 2048, fp32" in capsys.readouterr().out
    answers = []
    for name in ("m.safetensors", f"m{EXPORTERS[to].suffix}"):
        assert main(["predict", str(tmp_path / name), str(tmp_path / "photo.png"), "--json", "--top", "5"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["predictions"])
    for ours, theirs in zip(*answers, strict=True):
        assert ours["class"] == theirs["class"]
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
