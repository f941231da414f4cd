"""Lower precision in a TensorFlow Lite graph, by ai-edge-quantizer."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hybridvit.export.exporter import Quantisation
from hybridvit.export.quiet import quiet, quiet_native
from hybridvit.export.spec import INPUT
from hybridvit.machine.facts import usable_cores
from hybridvit.models.hat.attention import MapCarriers

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel
    from hybridvit.export.targets.litert_graph import TFLiteGraph

SIGNATURE = "serving_default"  # litert-torch's name for the only one


def with_float16_weights(graph: bytes) -> bytes:
    """`graph` with the weights of its convolutions and linear layers in float16, widened where they are used."""
    with quiet(), quiet_native():
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.algorithm_manager import AlgorithmName
        from ai_edge_quantizer.quantizer import Quantizer

        quantizer = Quantizer(graph)
        operations = qtyping.TFLOperationName.ALL_SUPPORTED
        quantizer.add_weight_only_config(".*", operations, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
        return bytes(quantizer.quantize(enable_progress_report=False).quantized_model)


def with_integers(graph: "TFLiteGraph", model: "DeployedModel", quantisation: Quantisation) -> bytes:
    """`graph` in 8-bit integers between floating-point ends; operations of the modules that are kept stay as they are.

    Weights are symmetric, per channel; activations have a scale and a zero per tensor, from the smallest to the
    largest number that the calibration images reach.

    Raises UsageError if a kept name is no module of `model`.
    """
    quantisation.check_names(model)
    # the matrices that pool the carriers are shared by two kinds of operation that want their channels on other axes
    kept = [*quantisation.kept, *(name for name, module in model.named_modules() if isinstance(module, MapCarriers))]
    with quiet(), quiet_native():
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.algorithm_manager import AlgorithmName
        from ai_edge_quantizer.quantizer import Quantizer

        quantizer, operations = Quantizer(graph.content), qtyping.TFLOperationName
        quantizer.add_static_config(".*", operations.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        for end in (operations.INPUT, operations.OUTPUT):
            quantizer.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
        for name in kept:
            quantizer.update_quantization_recipe(
                operations_of(name, graph.last), operations.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
            )
        batches = {SIGNATURE: [{INPUT: batch} for batch in quantisation.batches(len(model.example()))]}
        ranges = quantizer.calibrate(batches, num_threads=usable_cores())
        if not ranges:  # all is kept
            return graph.content
        return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)


def operations_of(module: str, last: Mapping[str, str]) -> str:
    """A regular expression for the names of the operations inside a module: `a.b;2`, and fused ones `a;;a.b;1`.

    `last` tells the modules of those that are named after an output.
    """
    inside = rf"(^|;){re.escape(module)}[.;]"
    named_otherwise = [re.escape(name) for name, of in last.items() if f"{of}.".startswith(f"{module}.")]
    return "|".join([inside, *named_otherwise])
