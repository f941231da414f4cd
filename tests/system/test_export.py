"""Exported files: equal to PyTorch, complete in themselves, and never left half-written or wrong."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError, ExportError, FoldError, UsageError
from hybridvit.export import EXPORTERS, Runner, load_runner
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets import onnx_graph
from hybridvit.export.targets.onnx import OnnxExporter
from hybridvit.loading import load, open_runner


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    made = trained_like(hybridvit.create_model("fastvit_debug", num_classes=3))
    names = ("<b>kräftig</b>", "二", "c")
    made.card = dataclasses.replace(made.card, class_names=names)
    return made


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    images = np.random.default_rng(0).standard_normal((7, 3, 32, 32), dtype=np.float32)
    return export(model, tmp_path_factory.mktemp("export") / "m.onnx", images=images)


def test_the_report_states_what_was_compared(exported: ExportReport) -> None:
    parity = exported.parity
    assert 0 < parity.max_error <= 1e-5
    assert (parity.batch_sizes, parity.image_sizes) == ((1, 2, 5), ((32, 32),))
    assert (parity.real_images, parity.num_same) == (7, 7)
    assert exported.folding.folded


def test_one_file_holds_all_that_is_needed(model: nn.Module, exported: ExportReport) -> None:
    assert [path.name for path in exported.path.parent.iterdir()] == ["m.onnx"]
    runner = load(exported.path)
    assert isinstance(runner, Runner)
    assert runner.card.class_names == model.card.class_names
    assert runner.card.preprocessing == model.card.preprocessing
    assert runner.card.form == "folded"
    metadata = runner.metadata
    assert json.loads(metadata["hybridvit.graph"])["image_size"] == [32, 32]
    assert json.loads(metadata["hybridvit.parity"])["max_error"] == exported.parity.max_error
    assert "onnxruntime" in json.loads(metadata["hybridvit.versions"])
    assert len(metadata["hybridvit.weights_sha256"]) == 64


@pytest.mark.nightly  # test_quantisation.py exports folded models every day
def test_a_folded_model_exports_too(model: nn.Module, tmp_path: Path) -> None:
    report = export(hybridvit.fold(model), tmp_path / "f.onnx", options=ExportOptions(image_size=(40, 64)))
    assert report.parity.passed
    assert load_runner(report.path).spec.image_size == (40, 64)


class Earlier(OnnxExporter):
    """Writes a file that another export has written, whatever it is given."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def convert(self, model: DeployedModel, path: Path, quantisation: Quantisation | None = None) -> None:
        shutil.copy(self.file, path)


def test_a_file_over_the_limit_is_not_kept(
    model: nn.Module, exported: ExportReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.head.fc.bias[0] += 1e-3
    monkeypatch.setitem(EXPORTERS, "onnx", Earlier(exported.path))
    target = tmp_path / "m.onnx"
    target.write_bytes(b"the earlier one")
    with pytest.raises(ExportError, match=r"differs from PyTorch by .* the limit is 1e-05. It was not kept"):
        export(changed, target)
    assert target.read_bytes() == b"the earlier one"
    assert list(tmp_path.iterdir()) == [target]


class Truncating(Earlier):
    """Leaves half of the file."""

    def seal(self, path: Path) -> None:
        super().seal(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_file_that_its_runtime_cannot_open_is_not_kept(
    model: nn.Module, exported: ExportReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTERS, "onnx", Truncating(exported.path))
    with pytest.raises(
        ExportError,
        match=r"^The onnx file of fastvit_debug in fp32 was written, but ONNX Runtime does not open it \([^\n]+\)\. It "
        r"was not kept\. Another precision, or another version of ",
    ):
        export(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class SortsByData(nn.Module):
    """Nothing that a graph can hold: its path depends on the pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_converted_says_why_in_one_line(model: nn.Module, tmp_path: Path) -> None:
    spec = GraphSpec(image_size=(32, 32))
    deployed = DeployedModel(hybridvit.fold(model), spec)
    deployed.backbone.stem = SortsByData()
    with pytest.raises(ExportError, match=r"cannot convert this model to ONNX \([^\n]+\)") as raised:
        OnnxExporter().convert(deployed, tmp_path / "m.onnx")
    assert "\n" not in str(raised.value)


def test_weights_that_no_onnx_file_holds_are_refused_before_they_are_converted(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LARGEST_BYTES", 1000)
    with pytest.raises(ExportError, match=r"weights of fastvit_debug are 0\.0 GiB, but an ONNX file holds 2, .* fp16"):
        export(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_file_names_no_file_of_the_machine_that_wrote_it(exported: ExportReport) -> None:
    content = exported.path.read_bytes()
    assert str(Path(hybridvit.__file__).parent).encode() not in content
    assert b"stack_trace" not in content


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"training mode.*model.eval\(\)"):
        export(hybridvit.create_model("fastvit_debug"), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("m.onnx", {"to": "onx"}, "no export target 'onx'. Nearest: 'onnx'"),
        ("m.pt", {}, r"should end in '\.onnx'.*Use .*m\.onnx"),
        ("no/m.onnx", {}, "folder .*no does not exist"),
        (
            "m.onnx",
            {"options": ExportOptions(image_size=(16, 16))},
            "Image is 16x16 pixels, but fastvit_debug needs both sides >= 32",
        ),
        ("m.onnx", {"options": ExportOptions(limit=-1.0)}, "limit is -1, but must be a difference above 0"),
        ("m.onnx", {"options": ExportOptions(limit=float("nan"))}, "limit is nan, but must be"),
        ("m.onnx", {"images": np.zeros((1, 3, 8, 8), np.float32)}, r"has shape \(3, 8, 8\), but this export takes"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    model: nn.Module, tmp_path: Path, name: str, given: dict, text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        export(model, tmp_path / name, **given)
    assert list(tmp_path.iterdir()) == []


def test_a_module_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Linear carries no card"):
        export(nn.Linear(2, 2).eval(), tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        load_runner(path)


def test_a_missing_file_and_an_unknown_suffix_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        load_runner(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"its suffix is '\.caffe'"):
        load_runner(tmp_path / "m.caffe")


def test_a_foreign_onnx_file_is_told_apart_from_a_damaged_one(exported: ExportReport, tmp_path: Path) -> None:
    import onnx

    foreign = onnx.load(exported.path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match=r"holds no hybridvit\.card"):
        load_runner(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(foreign, {"hybridvit.card": "{}"})
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match=r"card inside .* cannot be read"):
        load_runner(tmp_path / "foreign.onnx")


def test_a_batch_of_another_shape_is_refused_with_the_right_one(exported: ExportReport) -> None:
    runner = load_runner(exported.path)
    with pytest.raises(UsageError, match=r"\(1, 3, 64, 64\).*takes \(batch, 3, 32, 32\)"):
        runner(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(UsageError, match=r"four axes.*image\[None\]"):
        runner(np.zeros((3, 32, 32), np.float32))


def test_weights_and_exported_files_answer_through_the_same_interface(
    model: nn.Module, exported: ExportReport, tmp_path: Path
) -> None:
    hybridvit.save_checkpoint(model, tmp_path / "m.safetensors")
    images = np.random.default_rng(1).standard_normal((3, 3, 32, 32), dtype=np.float32)
    runners = [open_runner(path) for path in (tmp_path / "m.safetensors", exported.path)]
    assert [runner.runtime for runner in runners] == ["torch", "onnxruntime"]
    assert relative_error(runners[1](images)["logits"], runners[0](images)["logits"]) <= 1e-5
    assert isinstance(runners[0].card, ModelCard)


def test_relative_error_is_not_fooled() -> None:
    reference = np.array([[1e-6, -2e-6]], np.float32)
    assert relative_error(reference * 1.5, reference) == pytest.approx(0.5)
    assert relative_error(np.full_like(reference, np.nan), reference) == float("inf")
    assert relative_error(reference[:, :1], reference) == float("inf")
