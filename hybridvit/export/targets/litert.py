"""LiteRT (TensorFlow Lite): one .tflite file with its record inside, of one batch and image size, run by XNNPACK."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.errors import CheckpointError, first_line
from hybridvit.export.exporter import Exporter, Quantisation
from hybridvit.export.quiet import quiet_native
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import KEY, NOTHING_ELSE, Trust, as_written
from hybridvit.export.spec import INPUT
from hybridvit.export.targets.litert_file import TFLiteFile
from hybridvit.machine.facts import usable_cores

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel


class LiteRTRunner(ExportedRunner):
    """An exported file in LiteRT's interpreter on the CPU, with XNNPACK."""

    runtime = "litert"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        from ai_edge_litert.interpreter import Interpreter

        file = TFLiteFile.read(path)
        self.describe(path, file.metadata, trust=trust)
        # the interpreter checks little of what it is given, and a damaged graph can end the process
        with as_written(path, trust):
            if file.metadata.get(KEY) != file.digest:
                raise CheckpointError(
                    f"{path} is damaged or was changed: its content is not that of its digest. Copy it anew, or export "
                    "it again."
                )
        try:
            with quiet_native():  # that XNNPACK was found
                interpreter = Interpreter(model_content=file.graph, num_threads=threads or usable_cores())
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"This version of ai-edge-litert cannot run {path} ({first_line(error)}). Update ai-edge-litert, or "
                "export the model again."
            ) from error
        self.signature = interpreter.get_signature_runner()

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch."""
        outputs = self.signature(**{INPUT: images})
        return [outputs[name] for name in self.spec.outputs]


class LiteRTExporter(Exporter):
    """Through torch.export and litert-torch, which asks for an older torch than the other converters run with.

    fp16 means float16 weights: on a CPU they are widened when the file is opened and the arithmetic is fp32; GPUs and
    NPUs compute as they are set. int8 means 8-bit weights per channel and 8-bit activations, calibrated, between
    floating-point ends.
    """

    target = "litert"
    title = "LiteRT"
    runtime = "litert"
    suffix = ".tflite"
    runner = LiteRTRunner
    writer_packages = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
    runner_packages = ("ai_edge_litert",)
    extra = "litert"
    rewrites = ("hybridvit.export.rewrites:depthwise_in_parts",)
    precisions = ("fp32", "fp16", "int8")
    takes_dynamic_batch = False
    takes_dynamic_size = False
    default_batch = 1

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write the graph, with tensors named after the modules of `model`; its signature is that of its spec."""
        from hybridvit.export.targets.litert_graph import tflite_graph
        from hybridvit.export.targets.litert_weights import with_float16_weights, with_integers

        graph = tflite_graph(model)
        content = graph.content
        if model.spec.precision == "fp16":
            content = with_float16_weights(content)
        elif quantisation is not None:
            content = with_integers(graph, model, quantisation)
        TFLiteFile(content, {}).write(path)

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Replace the record behind the graph by what it holds and `metadata`."""
        file = TFLiteFile.read(path)
        TFLiteFile(file.graph, {**file.metadata, **metadata}).write(path)

    def seal(self, path: Path) -> None:
        """Put the digest into the record, whose own checksum has to be right again."""
        TFLiteFile.read(path).sealed().write(path)

    def how_to_install(self) -> str:
        """What to run: an environment of its own to write files, one package to run them."""
        return (
            "Its converter needs torch older than 2.15, so give it an environment of its own: python -m venv "
            f'.venv-litert; .venv-litert/bin/pip install -e ".[{self.extra}]" in a clone; then '
            ".venv-litert/bin/hybridvit export ... --to litert. To run .tflite files, with any torch: "
            'pip install "hybridvit[litert-runtime]".'
        )
