"""A deployed model as a torch.export program in which nothing is left to compute that no image can change."""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram

from hybridvit.export.sizes import example_size
from hybridvit.export.spec import GraphSpec

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel

CHECKS = (torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default)
"""Of sizes and dtypes; our runners check what they are given, and the export compares what they answer."""

Decompositions = Mapping[OpOverload, Callable[..., object]]
"""What computes the same as an operator, by operator."""

Axes = tuple[dict[int, Dim]]
"""The dynamic axes of the one input."""


def exported_program(model: "DeployedModel", decompositions: Decompositions | None = None) -> ExportedProgram:
    """`model` as its spec says, functional, with composite ATen operators; the weights keep their names.

    Indices, pooling matrices and biases that depend on the size alone are constants for a fixed size: converters lack
    the integer arithmetic behind them (coremltools 9.0 has no `&` between tensors), and runtimes would redo it for
    every image. `decompositions` replace further operators by what a converter knows.
    """
    spec = model.spec
    axes = dynamic_axes(spec)
    example = model.example(size=None if spec.range_px is None else example_size(spec.range_px))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own internals
        program = _export(model, example, axes)
        module = program.module(check_guards=False)
        if fold_constants(module):
            program = _export(module, example, axes)
        program = program.run_decompositions({torch.ops.aten.addcmul.default: _addcmul, **(decompositions or {})})
    for node in reversed(program.graph.nodes):
        if node.target in CHECKS:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def dynamic_axes(spec: GraphSpec) -> Axes | None:
    """The axes of the input that `spec` leaves open, as torch.export takes them; None if there are none."""
    axes = {} if spec.batch is not None else {0: Dim("batch")}
    first = 1 if spec.pixels == "uint8" else 2
    for index, name in enumerate(("height", "width")):
        sides = spec.range_px or {size[index] for size in spec.sizes}
        if min(sides) != max(sides):
            axes[first + index] = Dim(name, min=min(sides), max=max(sides))
    return (axes,) if axes else None


def fold_constants(module: fx.GraphModule) -> int:
    """Replace, in place, what is computed from constants and weights alone by its value; returns how many values.

    Weights that are used as they are stay as they are.
    """
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = _attribute(module, node.target)
        elif node.op == "call_function" and all(each in values for each in node.all_input_nodes):
            arguments = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*arguments[0], **arguments[1])
    count = 0
    for node, value in values.items():
        is_needed = any(user not in values for user in node.users)
        if node.op != "call_function" or not is_needed or not isinstance(value, Tensor):
            continue
        name = f"constant_{len(module._buffers)}"  # of those from an earlier call, none is replaced
        module.register_buffer(name, value.clone(memory_format=torch.contiguous_format))
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
        constant.meta.update(node.meta)  # quantizers ask for the shape
        node.replace_all_uses_with(constant)
        count += 1
    for node in reversed(values):
        if not node.users:  # checks of constants would keep them alive
            module.graph.erase_node(node)
    module.recompile()
    return count


def module_of(node: fx.Node) -> str:
    """The name of the innermost module that a node was traced in; "" outside of all."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0] if stack else ""


def _export(model: nn.Module, example: Tensor, axes: Axes | None) -> ExportedProgram:
    # what tracing assumes of a dynamic side becomes a check in the graph; as a guard it would forbid the side
    return torch.export.export(model, (example,), dynamic_shapes=axes, prefer_deferred_runtime_asserts_over_guards=True)


def _addcmul(x: Tensor, first: Tensor, second: Tensor) -> Tensor:  # coremltools has none
    return x + first * second


def _attribute(module: fx.GraphModule, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value
