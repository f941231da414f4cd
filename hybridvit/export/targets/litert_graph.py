"""A deployed model as the bytes of a TensorFlow Lite graph."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from hybridvit.errors import ExportError, first_line
from hybridvit.export.program import exported_program, module_of
from hybridvit.export.quiet import quiet, quiet_native
from hybridvit.export.spec import INPUT

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel


@dataclass(frozen=True)
class TFLiteGraph:
    """What litert-torch made: operations are named after the modules that they come from, but for the last ones."""

    content: bytes
    last: dict[str, str]  # operations that give the outputs: their name, their module


def tflite_graph(model: "DeployedModel") -> TFLiteGraph:
    """The graph, in fp32; its input and outputs are named as the spec says.

    Raises ExportError if litert-torch cannot convert the model.
    """
    with quiet(), quiet_native():
        import litert_torch

        litert_torch.config.show_progress = False
        try:
            module, makers = _named(_contiguous(model))
            made = litert_torch.convert(module, sample_kwargs={INPUT: model.example()})
            last = {f"serving_default_{output}_output": maker for output, maker in makers.items()}
            return TFLiteGraph(made.model_content(), last)
        except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
            raise ExportError(
                f"litert-torch {litert_torch.__version__} cannot convert this model ({first_line(error)}). Another "
                "version of litert-torch or torch may do it."
            ) from error


def _contiguous(model: "DeployedModel") -> "DeployedModel":
    """A copy whose tensors lie in memory in the order of their axes.

    litert-torch (0.10) remembers constants by their address. It makes a temporary contiguous copy of one that lies
    otherwise, such as a kernel with channels last, and takes the next of the same shape, which lands at the same
    address, for the first: each convolution of a FasterViT stage would get the kernel of another one.
    """
    copied = copy.deepcopy(model)
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.contiguous()
    return copied


def _named(model: "DeployedModel") -> tuple[fx.GraphModule, dict[str, str]]:
    """The program of `model` with its outputs by name, in which each operation is named after its module.

    Also the module that makes each output.
    """
    module = exported_program(model).module(check_guards=False)
    graph = module.graph
    modules = {node: module_of(node) for node in graph.nodes}
    for node, name in modules.items():
        if name:
            node.meta["nn_module_stack"] = {name: ("", name)}
    graph.set_codegen(fx.graph.CodeGen())  # one argument, and a dict to return
    (given,) = graph.output_node().args
    made = dict(zip(model.spec.outputs, given if isinstance(given, tuple | list) else (given,), strict=True))
    makers = {output: modules[node] for output, node in made.items() if isinstance(node, fx.Node)}
    graph.output_node().args = (made,)
    return fx.GraphModule(module, graph).eval(), makers
