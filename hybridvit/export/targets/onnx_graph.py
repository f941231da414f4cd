"""From a deployed model to an ONNX graph of a given opset, in which every node computes something from the image."""

from typing import TYPE_CHECKING, Any

import torch

from hybridvit.errors import ExportError, first_line
from hybridvit.export.program import dynamic_axes
from hybridvit.export.quiet import quiet
from hybridvit.export.sizes import example_size
from hybridvit.export.spec import INPUT

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from hybridvit.export.graph import DeployedModel

LARGEST_BYTES = 2**31 - 2**24  # of weights: protobuf ends at 2 GiB, and the graph itself needs some
OPSET = 20  # by default: what torch writes by itself
OLDEST_WRITTEN = 18  # by torch, which takes no older opset
OLDEST_WITH_GELU = 20
LARGEST_CONSTANT = 2**20  # numbers of a value that is stored and not computed anew; larger ones would bloat the file


def onnx_graph(model: "DeployedModel") -> "ModelProto":
    """`model` as an ONNX graph with the ends, the opset and the precision that its spec describes.

    What depends on no image is a constant up to `LARGEST_CONSTANT` numbers: readers other than ONNX Runtime, such as
    OpenCV's, do not compute it. Raises ExportError where torch or ONNX cannot hold the model.
    """
    spec = model.spec
    opset = spec.opset or OPSET
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > LARGEST_BYTES:
        raise ExportError(
            f"The weights of {model.backbone.card.architecture} are {size / 2**30:.1f} GiB, but an ONNX file holds 2, "
            "and OpenVINO's is made through one. Use --precision fp16, or --to executorch."
        )
    example = model.example(size=None if spec.range_px is None else example_size(spec.range_px))
    try:
        with torch.no_grad(), quiet():  # its errors still come through
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=dynamic_axes(spec),
                input_names=[INPUT],
                output_names=list(spec.outputs),
                opset_version=max(opset, OLDEST_WRITTEN),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"torch {torch.__version__} cannot convert this model to ONNX "
            f"({first_line(error.__cause__ or error)}). Another version of torch or onnxscript may do it."
        ) from error
    assert program is not None  # dynamo=True always returns a program
    _fold_constants(program.model)
    graph = program.model_proto
    if opset < OLDEST_WITH_GELU:
        _order_gelu(graph)
    if opset < OLDEST_WRITTEN:
        _to_opset_17(graph)
    return _checked(graph, opset)


def _fold_constants(model: Any) -> None:
    """Replace, in place, what no image changes by its value, and paddings of nothing by what they are given."""
    from onnxscript import ir, optimizer

    with quiet():
        optimizer.fold_constants(model, input_size_limit=LARGEST_CONSTANT, output_size_limit=LARGEST_CONSTANT)
    for node in model.graph:
        if node.op_type == "Pad" and not node.outputs[0].is_graph_output():
            widths = ir.convenience.get_const_tensor(node.inputs[1])
            if widths is not None and not widths.numpy().any():
                ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
    optimizer.remove_unused_nodes(model)


def _order_gelu(model: "ModelProto") -> None:
    """Have a spelled-out GELU multiply, in place, by its input first and by 0.5 last: the same bits.

    OpenCV 4.14 dies (SIGSEGV) where the half comes first, as torch writes it.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    for last in model.graph.node:
        halved = makers.get(last.input[1]) if last.op_type == "Mul" else None
        shifted = makers.get(halved.input[1]) if halved is not None and halved.op_type == "Mul" else None
        erf = makers.get(shifted.input[0]) if shifted is not None and shifted.op_type == "Add" else None
        if halved is not None and erf is not None and erf.op_type == "Erf":
            half, rest = halved.input
            halved.input[:] = [last.input[0], rest]
            last.input[:] = [halved.output[0], half]


def _to_opset_17(model: "ModelProto") -> None:
    """Rewrite, in place, a graph of opset 18 in the operators of 17; onnx's own converter cannot (1.23).

    What changed between them is where reductions are told their axes, and that Pad may be told some.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if onnx.defs.get_schema(node.op_type, 18, node.domain).since_version < 18:
            continue
        axes = constants.get(node.input[1]) if len(node.input) == 2 else None
        if node.op_type.startswith("Reduce") and axes is not None and not _attribute(node, "noop_with_empty_axes"):
            values = onnx.numpy_helper.to_array(axes).tolist()
            kept = [each for each in node.attribute if each.name != "noop_with_empty_axes"]
            del node.input[1], node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("axes", values)])
        elif not (node.op_type == "Pad" and len(node.input) <= 3 and _attribute(node, "mode") != b"wrap"):
            raise ExportError(
                f"The operator {node.op_type} of this model cannot be written in opset 17. Use --opset 18 or later."
            )
    model.opset_import[0].version = 17
    used = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    for name, tensor in constants.items():
        if name not in used:
            model.graph.initializer.remove(tensor)


def _attribute(node: "NodeProto", name: str) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)


def _checked(model: "ModelProto", opset: int) -> "ModelProto":
    """`model` with the oldest IR version that goes with its opset. Raises ExportError if it is of another opset."""
    import onnx

    written = next(each.version for each in model.opset_import if each.domain == "")
    if written != opset:
        raise ExportError(
            f"torch {torch.__version__} was asked for opset {opset} and wrote {written}. Leave --opset out, or use "
            "another version of torch."
        )
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    return model
