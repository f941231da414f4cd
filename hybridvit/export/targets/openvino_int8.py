"""8-bit integers for OpenVINO, by NNCF."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hybridvit.export.exporter import Quantisation
from hybridvit.export.quiet import quiet
from hybridvit.export.targets.onnx_int8 import floating_nodes
from hybridvit.export.watched import watched

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model

    from hybridvit.export.graph import DeployedModel


def quantise_openvino(graph: "Model", source: "ModelProto", quantisation: Quantisation, batch: int | None) -> "Model":
    """`graph`, read from `source`, with its layers in integers but those that are kept.

    Weights are signed with one scale per output channel; activations unsigned or signed, whichever wastes no values
    (NNCF's preset "mixed"), with the least and largest values of the calibration images as their ranges. NNCF would
    halve the range of the first layer's weights against an overflow of 16-bit sums on x86 without VNNI; that costs
    accuracy everywhere, and is not done.
    """
    batches = quantisation.batches(batch or 1)
    kept = floating_nodes(source.graph, quantisation.kept)
    with quiet(), _no_telemetry():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        names = [op.get_friendly_name() for op in graph.get_ops() if _source_of(op.get_friendly_name()) in kept]
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE,
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


@torch.no_grad()
def one_pixel_layers(model: "DeployedModel") -> tuple[str, ...]:
    """The convolutions that give maps with a side of one pixel, at the smallest size that the file takes.

    They stay in floating point. On CPUs with AMX, OpenVINO 2026.4.1 dies (SIGSEGV) where the last stage and the head of
    a FastViT compute maps of 1x1 pixels in integers; which of the layers does it could not be narrowed down, and it is
    the CPU that runs the file that counts, not the one that writes it. Integers gain no time on a map of one pixel.
    """
    found: dict[str, None] = {}

    def see(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if 1 in output.shape[-2:]:
            found[name] = None

    smallest = model.spec.range_px[0] if model.spec.range_px else None
    with watched(model, see, nn.Conv2d):
        model(model.example(size=None if smallest is None else (smallest, smallest)))
    return tuple(found)


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
