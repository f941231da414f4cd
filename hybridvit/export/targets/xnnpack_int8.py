"""int8 for XNNPACK by post-training quantisation: weights per output channel, activations static, per tensor."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from hybridvit.export.exporter import Quantisation
from hybridvit.export.program import module_of
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

    quantisation.check_names(model)
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    kept = tuple(f"{name}." for name in quantisation.kept)
    quantizer.set_filter_function(lambda node: _is_quantised(node) and not f"{module_of(node)}.".startswith(kept))
    with torch.no_grad(), quiet():
        prepared = prepare_pt2e(xnnpack_graph(model), quantizer)
        for batch in quantisation.batches(model.spec.batch or 1):
            prepared(torch.from_numpy(batch))
        return convert_pt2e(prepared)


def _is_quantised(node: fx.Node) -> bool:
    """Convolutions, linear layers and sums of two maps; not the arithmetic inside a LayerNorm or between scores.

    What is padded stays in floating point: executorch 1.5 writes the padding of integers so that the file does not
    open. The quantizer asks for the weights of a convolution as well, and takes it only if they may be quantised.
    """
    if node.op == "get_attr" or node.target == torch.ops.aten.relu.default:
        return True
    if any(user.target == torch.ops.aten.pad.default for user in node.users):
        return False
    if node.target in LAYERS:
        is_mean = _weight_shape(node)[0] == 1  # a layer with one output is the mean of a LayerNorm
        return not is_mean and not _is_large_depthwise(node)
    if node.target != torch.ops.aten.add.Tensor:
        return False
    terms = [each for each in node.args if isinstance(each, fx.Node) and each.op == "call_function"]
    same = len(terms) == 2 and all(each.meta["val"].shape == node.meta["val"].shape for each in terms)
    return same and not _is_large_depthwise(terms[1])  # the parts of a large depthwise convolution stay together


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
