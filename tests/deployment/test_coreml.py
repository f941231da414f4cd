"""Core ML packages: on Linux read back and computed; the Mac's part runs against a stand-in for Core ML."""

import ast
import dataclasses
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError, ExportError, UsageError
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.export.quiet import quiet
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets.coreml import SPEC_FILE, CoreMLExporter, _read_spec
from hybridvit.export.targets.coreml_model import compare_weights
from hybridvit.export.targets.coreml_program import constants, evaluate, load_program

pytestmark = pytest.mark.skipif(importlib.util.find_spec("coremltools") is None, reason="coremltools is not installed")

NAMES = ("crane", "kräftig", "crane")


def made(name: str = "fastvit_debug") -> nn.Module:
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model(name, num_classes=3))
    model.card = dataclasses.replace(model.card, class_names=NAMES)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(made(), tmp_path_factory.mktemp("coreml") / "m.mlpackage", to="coreml")


def description(path: Path) -> object:
    return _read_spec(path).description


def test_every_weight_is_found_inside_unchanged(exported: ExportReport) -> None:
    assert exported.weights is not None
    assert exported.weights.num_tensors > 50
    assert exported.weights.max_error == 0
    assert exported.weights.reason == "Core ML is part of macOS"
    assert exported.parity.max_error <= 1e-6


def test_the_program_that_was_written_answers_as_pytorch(exported: ExportReport) -> None:
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = made()(images).numpy()
    assert relative_error(evaluate(load_program(exported.path), images)["logits"].numpy(), expected) <= 1e-6


def test_shapes_are_fixed_and_classes_named(exported: ExportReport) -> None:
    about = description(exported.path)
    (given,) = about.input
    assert (given.name, list(given.type.multiArrayType.shape)) == ("images", [1, 3, 32, 32])
    assert given.type.multiArrayType.WhichOneof("ShapeFlexibility") is None
    assert {output.name for output in about.output} == {"classLabel", "classLabel_probs", "logits"}
    assert about.predictedFeatureName == "classLabel"
    operations = load_program(exported.path).functions["main"].operations
    assert operations[-1].classes.val == ["crane (0)", "kräftig", "crane (2)"]  # Core ML wants each name once


def test_the_card_is_inside_and_xcode_shows_what_it_is(exported: ExportReport) -> None:
    about = description(exported.path).metadata
    assert json.loads(about.userDefined["hybridvit.card"])["class_names"] == list(NAMES)
    assert about.shortDescription == "fastvit_debug, fp32: logits of an image"
    assert about.author == "randomly initialised"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("fastvit_debug", {"precision": "fp16", "uint8": True}, marks=pytest.mark.nightly),
        ("fastvit_debug", {"image_sizes": ((64, 64), (96, 64)), "uint8": True}),
        ("fastvit_debug", {"returns": "pyramid", "batch": 2}),
        ("fastervit_debug", {"top_k": 2}),
        pytest.param("fastervit_debug", {"precision": "fp16", "batch": 2}, marks=pytest.mark.nightly),
        pytest.param("swin_debug_hat", {"returns": "features"}, marks=pytest.mark.nightly),
    ],
)
def test_every_kind_of_end_is_proven(name: str, options: dict, tmp_path: Path) -> None:
    report = export(made(name), tmp_path / "m.mlpackage", to="coreml", options=ExportOptions(**options))
    about = description(report.path)
    assert {output.name for output in about.output} >= set(report.spec.outputs)
    assert report.weights is not None
    assert report.weights.max_error <= (5e-4 if report.spec.precision == "fp16" else 0)
    assert report.parity.max_error <= (5e-3 if report.spec.precision == "fp16" else 1e-5)
    kind = about.input[0].type
    if report.spec.pixels == "uint8":
        assert kind.imageType.colorSpace == kind.imageType.RGB
        sizes = [(size.height, size.width) for size in kind.imageType.enumeratedSizes.sizes]
        assert sorted(sizes) == sorted(report.spec.image_sizes)


def test_several_sizes_of_fastervit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"fastervit_debug computes positions from the size.* one package per image_size"
    ):
        export(
            made("fastervit_debug"),
            tmp_path / "m.mlpackage",
            to="coreml",
            options=ExportOptions(image_sizes=((64, 64), (96, 96))),
        )
    with pytest.raises(UsageError, match=r"with 2 images of 3 channels per call, .* Leave the batch at 1"):
        export(made(), tmp_path / "m.mlpackage", to="coreml", options=ExportOptions(uint8=True, batch=2))
    assert list(tmp_path.iterdir()) == []


class Changed(CoreMLExporter):
    """Writes another model than it was given."""

    def __init__(self, change: str) -> None:
        self.change = change

    def convert(self, model: DeployedModel, path: Path, quantisation: Quantisation | None = None) -> None:
        other = DeployedModel(model.backbone, model.spec)
        if self.change == "weight":
            other.backbone.stem[0].conv.weight[0, 0, 0, 0] += 1e-3
        else:
            other.backbone.stem[0] = nn.Sequential(nn.Identity(), other.backbone.stem[0])
            for child in other.backbone.modules():
                if isinstance(child, nn.GELU):
                    child.approximate = "tanh"
            other.backbone.stem[0].register_forward_hook(lambda module, inputs, output: output.relu())
        super().convert(other, path)


def test_a_package_with_another_weight_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "coreml", Changed("weight"))
    with pytest.raises(
        ExportError, match=r"'backbone\.stem\.0\.conv\.weight' differs by up to 1\.0e-03\. It was not kept"
    ):
        export(made(), tmp_path / "m.mlpackage", to="coreml")
    assert list(tmp_path.iterdir()) == []


def test_int8_is_of_the_weights_and_spares_what_is_named(tmp_path: Path) -> None:
    exporter, kept = CoreMLExporter(), "backbone.stages.3.blocks.0.ffn.expand"
    spec = GraphSpec(image_size=(32, 32), batch=1, precision="int8")
    model = DeployedModel(hybridvit.fold(made()), spec)
    path = tmp_path / "m.mlpackage"
    exporter.convert(model, path, Quantisation(images=model.example(), kept=(kept,)))
    program = load_program(path)
    compare_weights(model, program)
    kinds = {op.outputs[0].name: op.op_type for op in program.functions["main"].operations}
    assert kinds[f"p_{kept.replace('.', '_')}_weight_to_fp16"] == "const"
    project = "p_backbone_stages_3_blocks_0_ffn_project_weight_to_fp16"
    assert sum(kind.startswith("constexpr") for kind in kinds.values()) > 5
    assert any(name.startswith(project) and kind.startswith("constexpr") for name, kind in kinds.items())
    assert constants(program)[f"p_{kept.replace('.', '_')}_weight_to_fp16"].dtype == np.float16
    images = torch.randn(1, 3, 32, 32)
    assert relative_error(evaluate(program, images)["logits"].numpy(), model(images).numpy()) <= 0.2


def test_linux_says_where_a_package_runs(exported: ExportReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(
        UsageError,
        match=r"cannot run on this machine: Core ML is part of macOS\. On a Mac, `python m\.verify_on_mac\.py`",
    ):
        load_runner(exported.path)


class StandIn:
    """Core ML as far as the runner and the script use it, on our own reading of the program."""

    wrong_by = 0.0

    def __init__(self, path: str, compute_units: str) -> None:
        self.program = load_program(Path(path))

    def predict(self, data: dict[str, object]) -> dict[str, np.ndarray]:
        pixels = np.asarray(data["images"], np.float32)
        images = torch.from_numpy(pixels.transpose(2, 0, 1)[None] if pixels.ndim == 3 else pixels)
        answers = evaluate(self.program, images)
        return {"logits": answers["logits"].numpy() + self.wrong_by}


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    with quiet():
        import coremltools as ct
    monkeypatch.setattr(sys, "platform", "darwin")
    units = types.SimpleNamespace(CPU_ONLY="c", CPU_AND_GPU="g", CPU_AND_NE="n", ALL="a")
    monkeypatch.setattr(ct, "ComputeUnit", units)
    real = ct.models.MLModel

    class Model(StandIn):
        def __new__(cls, path: str, *words: object, **named: object) -> object:
            return real(path, *words, **named) if named.get("skip_model_load") else super().__new__(cls)

    monkeypatch.setattr(ct.models, "MLModel", Model)
    return Model


@pytest.mark.parametrize("uint8", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_on_a_mac_the_file_is_run_and_compared(uint8: bool, mac: type[StandIn], tmp_path: Path) -> None:
    report = export(made(), tmp_path / "m.mlpackage", to="coreml", options=ExportOptions(uint8=uint8))
    assert report.weights is None
    assert report.parity.max_error <= 1e-6
    runner = hybridvit.load(report.path)
    assert (runner.runtime, runner.card.class_names) == ("coreml", NAMES)
    assert runner(np.zeros((3, 3, 32, 32), np.float32))["logits"].shape == (3, 3)


def test_a_changed_package_is_refused_on_a_mac(exported: ExportReport, mac: type[StandIn], tmp_path: Path) -> None:
    package = Path(shutil.copytree(exported.path, tmp_path / "m.mlpackage"))
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or was changed: its files are not those of its digest"):
        load_runner(package)
    (package / SPEC_FILE).write_bytes(b"<html></html>")
    with pytest.raises(CheckpointError, match="no Core ML package that can be read"):
        load_runner(package)
    (package / SPEC_FILE).unlink()
    with pytest.raises(CheckpointError, match="A Core ML package is a folder: copy all of it"):
        load_runner(package)


def script_of(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("verify_on_mac", path.with_suffix(".verify_on_mac.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WARMUP, module.REPEATS = 0, 2
    return module


def test_the_script_for_the_mac_needs_nothing_of_ours(exported: ExportReport) -> None:
    tree = ast.parse(exported.path.with_suffix(".verify_on_mac.py").read_text(encoding="utf-8"))
    modules = {
        (alias.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert modules - set(sys.stdlib_module_names) == {"coremltools", "numpy", "PIL"}


@pytest.mark.parametrize(("wrong_by", "code"), [(0.0, 0), (0.5, 1), (float("nan"), 1)])
def test_the_script_for_the_mac_compares(
    wrong_by: float, code: int, exported: ExportReport, mac: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    mac.wrong_by = wrong_by
    script = script_of(exported.path)
    assert script.main(exported.path.with_suffix(".verify_on_mac.py")) == code
    printed = capsys.readouterr().out
    assert all(units in printed for units in ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"))
    assert printed.strip().endswith("All agree with PyTorch." if code == 0 else "by more than the limit.")
