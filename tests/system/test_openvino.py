"""OpenVINO's two files: one model, equal to PyTorch, in fp32, and refused when they are damaged or parted."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from conftest import trained_like
from fresh import output_of
from PIL import Image
from torch import nn

import hybridvit
from hybridvit.errors import CheckpointError, ExportError, UsageError
from hybridvit.export import EXPORTERS, Runner, load_runner
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets.openvino import OpenVINOExporter


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    made = trained_like(hybridvit.create_model("fastvit_debug", num_classes=3))
    made.card = dataclasses.replace(made.card, class_names=('<b>"kräftig"</b>', "二", "c & d"))
    return made


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(model, tmp_path_factory.mktemp("openvino") / "m.xml", to="openvino")


@pytest.fixture
def copied(exported: ExportReport, tmp_path: Path) -> Path:
    for file in exported.path.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / "m.xml"


def test_two_files_hold_all_that_is_needed(model: nn.Module, exported: ExportReport) -> None:
    files = sorted(exported.path.parent.iterdir())
    assert [path.name for path in files] == ["m.bin", "m.xml"]
    assert exported.size_bytes == sum(path.stat().st_size for path in files)
    runner = hybridvit.load(exported.path)
    assert isinstance(runner, Runner)
    assert (runner.runtime, runner.spec) == ("openvino", GraphSpec(image_size=(32, 32)))
    assert runner.card.class_names == model.card.class_names
    assert runner.card.form == "folded"
    assert json.loads(runner.metadata["hybridvit.parity"])["max_error"] == exported.parity.max_error <= 1e-5
    assert "openvino" in json.loads(runner.metadata["hybridvit.versions"])


def test_it_is_answered_without_torch(exported: ExportReport, tmp_path: Path) -> None:
    Image.effect_noise((50, 40), 90).convert("RGB").save(tmp_path / "a.png")
    output_of(
        "commands_without_torch", json.dumps([["predict", str(exported.path), str(tmp_path / "a.png"), "--json"]])
    )


def test_it_computes_in_fp32_whatever_the_cpu_prefers(exported: ExportReport) -> None:
    runner = load_runner(exported.path, threads=1)
    assert runner.compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert runner.compiled.get_property("INFERENCE_NUM_THREADS") == 1


class Wrong(OpenVINOExporter):
    """Converts a model other than the one it was given."""

    def convert(self, model: DeployedModel, path: Path, quantisation: Quantisation | None = None) -> None:
        with torch.no_grad():
            model.backbone.head.fc.bias[0] += 1e-3
        super().convert(model, path, quantisation)


@pytest.mark.nightly  # as test_a_file_over_the_limit_is_not_kept with another target
def test_a_pair_over_the_limit_leaves_the_earlier_one(
    model: nn.Module, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in copied.parent.iterdir()}
    monkeypatch.setitem(EXPORTERS, "openvino", Wrong())
    with pytest.raises(ExportError, match=r"The openvino file .* differs from PyTorch by .* It was not kept"):
        export(model, copied, to="openvino")
    assert {file.name: file.read_bytes() for file in copied.parent.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_graph_is_refused(copied: Path, content: bytes) -> None:
    copied.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a model that OpenVINO can read"):
        load_runner(copied)


def test_a_graph_cut_short_is_refused(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[: copied.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="not a model that OpenVINO can read"):
        load_runner(copied)


def test_weights_that_are_missing_damaged_or_of_another_export_are_refused(copied: Path) -> None:
    weights = copied.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="not a model that OpenVINO can read"):
        load_runner(copied)
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.bin is not the file of weights that .*m\.xml was written with"):
        load_runner(copied)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"There is no file .*m\.bin.*two files, m\.xml and m\.bin, side by side"):
        load_runner(copied)


def test_a_foreign_graph_is_told_apart_from_a_damaged_one(copied: Path) -> None:
    text = copied.read_text(encoding="utf-8")
    copied.write_text(text.replace("<hybridvit>", "<other>").replace("</hybridvit>", "</other>"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"holds no hybridvit\.card"):
        load_runner(copied)


def test_a_graph_that_does_not_say_what_it_takes_is_refused(copied: Path) -> None:
    copied.write_text(copied.read_text(encoding="utf-8").replace("&quot;range_px&quot;", "&quot;form&quot;"), "utf-8")
    with pytest.raises(CheckpointError, match=r"does not say which images it takes .* Export it again"):
        load_runner(copied)


def test_a_batch_of_another_shape_is_refused_with_the_right_one(exported: ExportReport) -> None:
    with pytest.raises(UsageError, match=r"this openvino model takes \(batch, 3, 32, 32\)"):
        load_runner(exported.path)(np.zeros((1, 3, 64, 64), np.float32))
