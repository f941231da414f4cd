"""ONNX files of older and newer opsets: the same answers, in operators that their readers know."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import trained_like

import hybridvit
from hybridvit.cli.export import Request
from hybridvit.errors import UsageError
from hybridvit.export import load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.spec import GraphSpec
from hybridvit.models.backbone import Backbone

OLDEST_IR = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 23: 11, 25: 13}  # as ONNX's table of versions has them


def made(name: str, **options: object) -> Backbone:
    return trained_like(hybridvit.create_model(name, num_classes=5, **options))


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A FasterViT of one size in opset 17, whose biases are larger than what torch makes constants by itself."""
    model = made("fastervit_debug", windows=(7, 7, 7, 7), image_size=224)
    path = tmp_path_factory.mktemp("oldest") / "m.onnx"
    export(model, path, options=ExportOptions(opset=17, batch=1))
    assert load_runner(path).spec.opset == 17
    return onnx.load(path)


def test_the_command_line_takes_an_opset() -> None:
    assert Request(opset=17).job("m.safetensors").options.opset == 17


def test_opset_17_is_written_with_its_ir_and_gelu_spelled_out(oldest: onnx.ModelProto) -> None:
    assert (oldest.opset_import[0].version, oldest.ir_version) == (17, 8)
    onnx.checker.check_model(oldest, full_check=True)
    operators = Counter(node.op_type for node in oldest.graph.node)
    assert operators["Gelu"] == 0 < operators["Erf"]
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in oldest.graph.initializer}
    halves = [
        node
        for node in oldest.graph.node
        if node.op_type == "Mul" and np.array_equal(constants.get(node.input[1]), 0.5)
    ]
    assert len(halves) == operators["Erf"]  # last, where readers know a GELU by it


def test_no_node_of_one_size_is_without_a_path_from_the_input(oldest: onnx.ModelProto) -> None:
    reached = {each.name for each in oldest.graph.input}
    for node in oldest.graph.node:
        assert not reached.isdisjoint(node.input), f"{node.op_type} {node.name} computes a constant"
        reached.update(node.output)


def test_a_map_of_whole_windows_is_not_padded(oldest: onnx.ModelProto) -> None:
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in oldest.graph.initializer}
    widths = [constants[node.input[1]] for node in oldest.graph.node if node.op_type == "Pad"]
    assert all(each.any() for each in widths)


@pytest.mark.nightly
@pytest.mark.parametrize("opset", [18, 19, 20, 21, 23, 25])
def test_every_opset_has_the_oldest_ir_that_goes_with_it(opset: int, tmp_path: Path) -> None:
    report = export(made("fastvit_debug"), tmp_path / "m.onnx", options=ExportOptions(opset=opset))
    model = onnx.load(report.path)
    assert (model.opset_import[0].version, model.ir_version) == (opset, OLDEST_IR[opset])
    assert any(node.op_type == "Gelu" for node in model.graph.node) == (opset >= 20)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastvit_debug", {"uint8": True, "top_k": 2}),
        ("fastvit_debug", {"precision": "fp16"}),
        ("fastervit_debug", {"dynamic_size": True}),
        ("swin_debug_hat", {"returns": "pyramid"}),
    ],
)
def test_opset_17_has_every_option_of_an_export(name: str, options: dict, tmp_path: Path) -> None:
    report = export(made(name), tmp_path / "m.onnx", options=ExportOptions(opset=17, **options))
    assert onnx.load(report.path).opset_import[0].version == 17
    assert report.parity.passed


@pytest.mark.parametrize(
    ("to", "opset", "text"),
    [
        ("onnx", 16, "opset is 16, but must be a whole number from 17 to 25"),
        ("onnx", 26, "opset is 26, but must be a whole number from 17 to 25"),
        (
            "openvino",
            17,
            r"opset is 17, but files of the target 'openvino' have none: .* or export to onnx",
        ),
    ],
)
def test_an_opset_that_cannot_be_had_is_refused(to: str, opset: int, text: str, tmp_path: Path) -> None:
    path = tmp_path / ("m.onnx" if to == "onnx" else "m.xml")
    with pytest.raises(UsageError, match=text):
        export(made("fastvit_debug"), path, to=to, options=ExportOptions(opset=opset))
    assert list(tmp_path.iterdir()) == []


def test_files_from_before_there_was_a_choice_of_opset_open(tmp_path: Path) -> None:
    metadata = GraphSpec(image_size=(32, 32)).metadata()
    values = json.loads(metadata["hybridvit.graph"])
    del values["opset"]
    assert GraphSpec.read({"hybridvit.graph": json.dumps(values)}, tmp_path).opset is None
