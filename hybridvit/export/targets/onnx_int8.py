"""8-bit integers for ONNX Runtime: which operators become integer ones.

Activations are unsigned and weights signed, one scale per output channel: with signed activations ONNX Runtime 1.31
leaves depthwise convolutions in floating point, each between two conversions.
"""

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit.export.exporter import Quantisation
from hybridvit.export.quiet import quiet
from hybridvit.export.spec import INPUT

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

SCOPES = "pkg.torch.onnx.name_scopes"
"""The entry of a node's metadata in which torch puts a list of the modules that the node came from."""
BATCH = 8  # images per calibration run, where the graph takes any number


def quantise_onnx(model: "ModelProto", quantisation: Quantisation, batch: int | None, path: Path) -> None:
    """Write `model` to `path` with quantise and dequantise nodes around what is computed in integers.

    These are convolutions, products with weights, and the sums of two maps. Attention's products of activations,
    softmax, norms and activation functions stay in floating point.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = model.graph
    kept = floating_nodes(graph, quantisation.kept)
    constants = {tensor.name for tensor in graph.initializer}
    excluded = kept | {node.name for node in graph.node if _stays(node, constants)}
    with quiet():  # it gives advice through the root logger
        quantize_static(
            model,
            path,
            _Batches(quantisation, batch),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
            nodes_to_exclude=sorted(excluded),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
                "OpTypesToExcludeOutputQuantization": ["MatMul"],  # what follows, a bias or a norm, takes floats
            },
        )
    if kept:
        _give_floats(path, kept)


def _stays(node: "NodeProto", constants: set[str]) -> bool:
    """A product of two activations, or a sum with a constant: a bias, or positions."""
    num_constants = sum(name in constants for name in node.input)
    return (node.op_type == "MatMul" and not num_constants) or (node.op_type == "Add" and num_constants > 0)


def floating_nodes(graph: "GraphProto", modules: tuple[str, ...]) -> set[str]:
    """The nodes that came from inside the modules with these names, and sums of what those give."""
    kept = [node for node in graph.node if not set(modules).isdisjoint(_scopes(node))]
    given = {name for node in kept for name in node.output}
    sums = [node for node in graph.node if node.op_type == "Add" and not given.isdisjoint(node.input)]
    return {node.name for node in (*kept, *sums)}


def _scopes(node: "NodeProto") -> list[str]:
    """The names of the modules that a node was inside of."""
    entry = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return ast.literal_eval(entry)


def _give_floats(path: Path, kept: set[str]) -> None:
    """Give the kept nodes the values from before they were quantised.

    Between a dequantised input and a quantised output ONNX Runtime quantises a layer by itself, with one scale for all
    of its weights (its optimiser WeightBiasQuantization): the layers that need floating point most, the worst way.
    """
    import onnx

    model = onnx.load(path)
    before = _before_quantisation(model.graph)
    for node in model.graph.node:
        if node.name in kept:
            for place, name in enumerate(node.input):
                node.input[place] = before.get(name, name)
    used = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    for op_type in ("DequantizeLinear", "QuantizeLinear"):
        for node in [each for each in model.graph.node if each.op_type == op_type and each.output[0] not in used]:
            model.graph.node.remove(node)
        used = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    onnx.save(model, path)


def _before_quantisation(graph: "GraphProto") -> dict[str, str]:
    """For each dequantised activation the name of the value that was quantised."""
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    dequantised = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {name: source[quantised] for name, quantised in dequantised.items() if quantised in source}


class _Batches:
    """What ONNX Runtime calls a CalibrationDataReader."""

    def __init__(self, quantisation: Quantisation, batch: int | None) -> None:
        self._parts = iter(quantisation.batches(batch or BATCH, only_whole=batch is not None))

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs, or None after the last."""
        part = next(self._parts, None)
        return None if part is None else {INPUT: part}
