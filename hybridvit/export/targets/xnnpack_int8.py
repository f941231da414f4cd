"""int8 for XNNPACK by post-training quantisation: weights per output channel, activations static, per tensor."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from hybridvit.errors import UsageError, nearest
from hybridvit.export.exporter import Quantisation
from hybridvit.export.quiet import quiet
from hybridvit.export.targets.xnnpack import xnnpack_graph

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel

LARGEST_DEPTHWISE = 9  # weights per channel of a depthwise convolution that gains from int8
LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


def quantised_graph(model: "DeployedModel", quantisation: Quantisation) -> fx.GraphModule:
    """`model` with its layers and residual sums in int8, scaled by what `quantisation.images` reach.

    The modules named in `quantisation.kept`, with all inside them, stay in floating point, and so do softmax and
    LayerNorm, for which XNNPACK has no int8, and depthwise convolutions beyond 3x3, which gain nothing by it. Raises
    UsageError for a name that is no module.
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
    if node.op == "get_attr" or node.target == torch.ops.aten.relu.default:
        return True
    if node.target in LAYERS:
        return not _is_mean(node) and not _is_large_depthwise(node)
    if node.target != torch.ops.aten.add.Tensor:
        return False
    terms = [each for each in node.args if isinstance(each, fx.Node) and each.op == "call_function"]
    same = len(terms) == 2 and all(each.meta["val"].shape == node.meta["val"].shape for each in terms)
    return same and not _is_large_depthwise(terms[1])  # the parts of a large depthwise convolution stay together


def _is_mean(layer: fx.Node) -> bool:
    """A layer with one output is the mean of a LayerNorm."""
    return _weight_shape(layer)[0] == 1


def _is_large_depthwise(node: fx.Node) -> bool:
    """A depthwise convolution beyond 3x3: in int8 XNNPACK computes it no faster than in fp32 (docs/lab-log.md)."""
    if node.target != torch.ops.aten.conv2d.default:
        return False
    _, inputs, *kernel = _weight_shape(node)
    return inputs == 1 and math.prod(kernel) > LARGEST_DEPTHWISE


def _weight_shape(layer: fx.Node) -> Sequence[int]:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    return weight.meta["val"].shape


def _is_inside(node: fx.Node, names: tuple[str, ...]) -> bool:
    """Whether a module named in `names`, or one inside it, computes `node`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    return any(f"{path}.".startswith(f"{name}.") for name in names)
