"""int8 for XNNPACK by post-training quantisation: weights per output channel, activations static, per tensor."""

from typing import TYPE_CHECKING

import torch
from torch import fx

from hybridvit.errors import UsageError, nearest
from hybridvit.export.exporter import Quantisation
from hybridvit.export.targets.xnnpack import quiet, xnnpack_graph

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel

LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


def quantised_graph(model: "DeployedModel", quantisation: Quantisation) -> fx.GraphModule:
    """`model` with its layers and residual sums in int8, scaled by what `quantisation.images` reach.

    The modules named in `quantisation.kept`, with all inside them, stay in floating point, and so do GELU, softmax
    and LayerNorm, for which XNNPACK has no int8. Raises UsageError for a name that is no module.
    """
    with quiet():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    known = dict(model.named_modules())
    for name in quantisation.kept:
        if name not in known:
            raise UsageError(
                f"'{name}' is to keep floating point, but this model has no module of that name. Nearest: "
                f"{nearest(name, known)}."
            )
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(lambda node: _is_quantised(node) and not _is_inside(node, quantisation.kept))
    size = model.spec.batch or 1
    with torch.no_grad(), quiet():
        prepared = prepare_pt2e(xnnpack_graph(model), quantizer)
        for start in range(0, len(quantisation.images) - size + 1, size):
            prepared(quantisation.images[start : start + size])
        return convert_pt2e(prepared)


def _is_quantised(node: fx.Node) -> bool:
    """Convolutions, linear layers and sums of two maps; not the arithmetic inside a LayerNorm or between scores.

    The quantizer asks for the weights of a convolution as well, and takes it only if they may be quantised.
    """
    if node.op == "get_attr":
        return True
    if node.target in LAYERS:
        weight = node.args[1]
        assert isinstance(weight, fx.Node)
        return weight.meta["val"].shape[0] > 1  # one output: the mean of a LayerNorm
    if node.target == torch.ops.aten.relu.default:
        return True
    if node.target != torch.ops.aten.add.Tensor:
        return False
    terms = [each for each in node.args if isinstance(each, fx.Node) and each.op == "call_function"]
    return len(terms) == 2 and all(each.meta["val"].shape == node.meta["val"].shape for each in terms)


def _is_inside(node: fx.Node, names: tuple[str, ...]) -> bool:
    """Whether a module named in `names`, or one inside it, computes `node`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    return any(f"{path}.".startswith(f"{name}.") for name in names)
