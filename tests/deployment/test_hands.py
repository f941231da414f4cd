"""Hands as files: picture in, vertices out, to a thousandth of a millimetre; and parameters without the mesh."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import trained_like
from freihand_sets import write_freihand

import hybridvit
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.parity import BATCH_SIZES
from hybridvit.export.pipeline import export
from hybridvit.export.quantise.plan import plan_from_folder
from hybridvit.export.resolve import resolve
from hybridvit.export.spec import GraphSpec

TO_A_POINT = 1e-6  # m
SPREAD = 2.0  # of the weights: hands that differ from picture to picture, by millimetres
MESH_BYTES = 1_000_000  # less than the arrays of a hand, more than all else of a debug model


def made() -> Any:
    """A model whose hands differ from picture to picture."""
    torch.manual_seed(0)
    options = {"head_options": {"assets": "generated"}, "image_size": 64}
    model: Any = trained_like(hybridvit.create_model("fastvit_debug", task="hand", **options))
    with torch.no_grad():
        seen = model.pyramid(torch.randn(8, 3, 64, 64))[-1].mean((2, 3))
        for layer in (model.head.camera, model.head.pose, model.head.shape):
            layer.weight.copy_(SPREAD * torch.randn(layer.weight.shape))
            layer.bias.sub_(layer.weight @ seen.mean(0))
    return model


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.nightly)])
def test_a_file_puts_every_vertex_where_pytorch_does(to: str, tmp_path: Path) -> None:
    model = made()
    report = export(model, tmp_path / f"m{EXPORTERS[to].suffix}", to=to)
    assert report.spec.outputs == ("vertices", "keypoints", "camera", "rotations", "shape")
    assert report.parity.batch_sizes == BATCH_SIZES
    assert report.parity.limit == pytest.approx(TO_A_POINT)
    assert report.parity.max_error <= TO_A_POINT
    assert "generated hand is inside" in report.metadata["hybridvit.notice"]
    generator = torch.Generator().manual_seed(1)
    runner, images = load_runner(report.path), torch.randn(5, 3, 64, 64, generator=generator)
    with torch.no_grad():
        wanted = model(images)
    given = runner(images.numpy())
    assert np.abs(given["vertices"] - wanted.vertices.numpy()).max() <= TO_A_POINT
    assert wanted.vertices.std(0).mean() > 2e-4, "hands that are all alike would prove nothing"


def test_a_fold_moves_no_vertex() -> None:
    model, images = made(), torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        before, after = model(images), hybridvit.fold(model)(images)
    assert (before.vertices - after.vertices).abs().max() <= TO_A_POINT


def test_parameters_come_without_the_arrays_of_a_mesh(tmp_path: Path) -> None:
    report = export(made(), tmp_path / "m.onnx", options=ExportOptions(returns="parameters"))
    assert report.spec.outputs == ("camera", "rotations", "shape")
    assert report.size_bytes < MESH_BYTES
    assert report.notice == ""
    assert "hybridvit.notice" not in report.metadata
    model = onnx.load(report.path)
    assert not [each.name for each in model.graph.initializer if {778, 3 * 778} & set(each.dims)]


def test_half_precision_leaves_the_head_alone() -> None:
    model = hybridvit.fold(made())
    half = DeployedModel(model, resolved(model)).in_dtype(torch.float16)
    kinds = {name.startswith("backbone.head."): set() for name, _ in half.named_parameters()}
    for name, each in (*half.named_parameters(), *half.named_buffers()):
        if each.is_floating_point():
            kinds[name.startswith("backbone.head.")].add(each.dtype)
    assert kinds == {True: {torch.float32}, False: {torch.float16}}
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (half(images)[0] - model(images).vertices).abs().max() < 5e-4


def resolved(model: Any) -> GraphSpec:
    return resolve(model, model.card, EXPORTERS["onnx"], ExportOptions())


@pytest.mark.nightly
def test_in_half_precision_the_hand_is_moved_in_full(tmp_path: Path) -> None:
    report = export(made(), tmp_path / "m.onnx", options=ExportOptions(precision="fp16"))
    assert report.parity.max_error <= 5e-4
    arrays = {each.data_type for each in onnx.load(report.path).graph.initializer if np.prod(each.dims) > 778}
    assert onnx.TensorProto.FLOAT in arrays


@pytest.mark.nightly
def test_integers_stay_in_the_backbone_and_in_their_budget_of_millimetres(tmp_path: Path) -> None:
    write_freihand(tmp_path / "hands", hands=16)
    model = made()
    plan = plan_from_folder(tmp_path / "hands", model.card, num_calibration=8, max_drop=2.0)
    options = ExportOptions(precision="int8")
    report = export(model, tmp_path / "m.onnx", options=options, quantisation=plan)
    assert report.quality is not None
    assert report.quality.drop <= 2.0
    assert report.quality.quantity.unit == "mm"
    assert {"head.camera", "head.pose", "head.shape"} <= set(report.quality.kept)
    graph = onnx.load(report.path).graph
    scales = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    largest = max(graph.initializer, key=lambda each: int(np.prod(each.dims)))
    assert largest.name not in scales
    assert largest.data_type == onnx.TensorProto.FLOAT
