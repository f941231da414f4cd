"""OpenVINO: its IR, model.xml with the graph and model.bin with the weights, run on the CPU.

What it computes in is never left to the runtime, which takes bf16 by itself where the CPU has it.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.errors import CheckpointError, ExportError, first_line
from hybridvit.export.exporter import Exporter, Quantisation
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import NOTHING_ELSE, Trust, as_written
from hybridvit.export.spec import Precision

if TYPE_CHECKING:
    from openvino import Model

    from hybridvit.export.graph import DeployedModel

_log = logging.getLogger(__name__)

NAMESPACE = "hybridvit"  # of our entries in the graph's rt_info
DIGEST = "hybridvit.bin_sha256"  # of the weights file: the two files are one model, and can be parted
HINTS: dict[Precision, tuple[str, str]] = {"fp16": ("f16", "FP16"), "bf16": ("bf16", "BF16")}
"""What a file computes in that does not compute in f32, and the capability that the device needs for it."""


class OpenVINORunner(ExportedRunner):
    """An exported pair of files on OpenVINO's CPU device.

    Without the instructions that the file's precision needs it computes in fp32 instead of what OpenVINO would choose
    (bf16 for a file of fp16), and says so in the log.
    """

    runtime = "openvino"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        import openvino

        graph = _read(path)
        self.describe(path, _metadata(graph), path.read_bytes(), trust=trust)
        weights = path.with_suffix(".bin")
        with as_written(weights, trust):
            if self.metadata.get(DIGEST) != _digest(weights.read_bytes()):
                raise CheckpointError(
                    f"{weights} is not the file of weights that {path} was written with: it is damaged or of another "
                    "export. Copy both files together, or export again."
                )
        core = openvino.Core()
        config: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": self._hint(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        self.compiled = core.compile_model(graph, "CPU", config)

    @property
    def computes_in(self) -> str:
        """What the CPU uses for floating point, as the compiled model reports it: f32, f16 or bf16."""
        return str(self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def _hint(self, capabilities: Sequence[str]) -> str:
        precision = self.spec.precision
        hint, needed = HINTS.get(precision, ("f32", ""))
        if needed in ("", *capabilities):
            return hint
        _log.warning(
            "This CPU has no instructions for %s: the file is computed in fp32, more exactly and no faster.", precision
        )
        return "f32"

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch."""
        return [np.array(output) for output in self.compiled([images]).to_tuple()]


class OpenVINOExporter(Exporter):
    """Through ONNX: OpenVINO's own reader of torch programs knows no arithmetic on dynamic sizes (2026.4)."""

    target = "openvino"
    title = "OpenVINO"
    runtime = "openvino"
    suffix = ".xml"
    runner = OpenVINORunner
    writer_packages = ("openvino", "onnx", "onnxscript")
    runner_packages = ("openvino",)
    extra = "openvino"
    rewrites = ("hybridvit.models.fastvit.rewrites:doubling_as_depthwise",)
    # on CPUs with AMX, 2026.4.1 dies (SIGSEGV) of integers on small maps where sizes are dynamic
    of_one_size = ("int8",)
    takes_lists = True
    precisions = ("fp32", "fp16", "bf16", "int8")

    def companions(self, path: Path) -> Sequence[Path]:
        """The weights."""
        return (path.with_suffix(".bin"),)

    def floating_layers(self, model: "DeployedModel") -> tuple[str, ...]:
        """Those of one pixel."""
        from hybridvit.export.targets.openvino_int8 import one_pixel_layers

        return one_pixel_layers(model)

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write the IR: weights in fp32, or for fp16 in that; bf16 is what fp32 weights are computed in."""
        import openvino

        from hybridvit.export.targets.onnx_graph import onnx_graph

        onnx = onnx_graph(model)
        try:
            # not openvino.convert_model, which reports its use over the network
            graph = openvino.Core().read_model(onnx.SerializeToString(), b"")
        except RuntimeError as error:
            raise ExportError(
                f"OpenVINO {openvino.__version__} cannot read this model ({first_line(error)}). Another version of "
                "openvino may."
            ) from error
        if quantisation is not None:
            self.import_packages(("nncf",))
            from hybridvit.export.targets.openvino_int8 import quantise_openvino

            kept = (*quantisation.kept, *self.floating_layers(model))
            graph = quantise_openvino(graph, onnx, replace(quantisation, kept=kept), model.spec.batch)
        openvino.save_model(graph, path, compress_to_fp16=model.spec.precision == "fp16")

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put `metadata` and the digest of the weights into the graph's rt_info."""
        import openvino

        graph = _read(path)
        for key, value in metadata.items():
            graph.set_rt_info(value, key.split("."))
        openvino.save_model(graph, path, compress_to_fp16=False)
        # of the weights as they lie now: widening nodes of fp16 may have been put together with them
        graph.set_rt_info(_digest(path.with_suffix(".bin").read_bytes()), DIGEST.split("."))
        openvino.save_model(graph, path, compress_to_fp16=False)


def _read(path: Path) -> "Model":
    """The graph of a pair of files. From bytes: they may be replaced afterwards, and point to no other file."""
    import openvino

    weights = path.with_suffix(".bin")
    for part in (path, weights):
        if not part.is_file():
            raise CheckpointError(
                f"There is no file {part}. A model of OpenVINO is two files, {path.name} and {weights.name}, side by "
                "side: copy both, or export one with `hybridvit export CHECKPOINT --to openvino`."
            )
    try:
        return openvino.Core().read_model(path.read_bytes(), weights.read_bytes())
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} is not a model that OpenVINO can read: it or {weights.name} is damaged, incomplete or something "
            f"else ({str(error).strip().splitlines()[-1]}). Export it again with `hybridvit export CHECKPOINT --to "
            "openvino`."
        ) from error


def _metadata(graph: "Model") -> dict[str, str]:
    if not graph.has_rt_info(NAMESPACE):
        return {}
    entries = graph.get_rt_info(NAMESPACE).value
    return {f"{NAMESPACE}.{key}": str(value) for key, value in entries.items()} if isinstance(entries, dict) else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
