"""8-bit integers for OpenVINO, by NNCF."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hybridvit.export.exporter import Quantisation
from hybridvit.export.quiet import quiet
from hybridvit.export.targets.onnx_int8 import filled, floating_nodes

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model


def quantise_openvino(graph: "Model", source: "ModelProto", quantisation: Quantisation, batch: int | None) -> "Model":
    """`graph`, read from `source`, with its layers in integers but those that are kept.

    Weights are signed with one scale per output channel; activations unsigned or signed, whichever wastes no values
    (NNCF's preset "mixed"), with the least and largest values of the calibration images as their ranges. NNCF would
    halve the range of the first layer's weights against an overflow of 16-bit sums on x86 without VNNI; that costs
    accuracy everywhere, and is not done.
    """
    size = batch or 1
    images = filled(quantisation.images.numpy(), size)
    kept = floating_nodes(source.graph, quantisation.kept)
    with quiet(), _no_telemetry():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        names = [op.get_friendly_name() for op in graph.get_ops() if _source_of(op.get_friendly_name()) in kept]
        return nncf.quantize(
            graph,
            nncf.Dataset([images[start : start + size] for start in range(0, len(images), size)]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images) // size,
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE,
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


def _source_of(name: str) -> str:
    """The ONNX node of an operation: OpenVINO parts a convolution from its bias, and keeps the name for the bias."""
    return name.partition("/")[0]


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Without NNCF's report of use over the network."""
    given = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"  # read when it is imported
    try:
        yield
    finally:
        if given is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = given
