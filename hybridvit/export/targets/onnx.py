"""ONNX: one file, dynamic batch and if asked for dynamic sides, run by ONNX Runtime on the CPU.

fp16 is exact to what half precision holds, and halves the file; on x86 it is not faster, since ONNX Runtime 1.31 widens
each operator there. No bf16: the operators as torch writes them (opset 20) do not take it. Older opsets are for older
runtimes: below 20 GELU is spelled out in Erf, and the IR version is always the oldest that goes with the opset.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.errors import CheckpointError, first_line
from hybridvit.export.exporter import Exporter, Quantisation
from hybridvit.export.runners import ExportedRunner, read_file
from hybridvit.export.seal import NOTHING_ELSE, Trust
from hybridvit.export.targets.onnx_foreign import DTYPES, described, precision_of
from hybridvit.export.targets.onnx_int8 import SCOPES, quantise_onnx

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel


class OnnxRunner(ExportedRunner):
    """An exported file in ONNX Runtime's CPU provider, which computes in fp32 as written."""

    runtime = "onnxruntime"
    takes_callers = True
    likes_small_batches = True

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: ours say more
        # idle threads sleep: else they spin after each call and slow down whatever runs next, such as another runtime
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        content = read_file(path)  # not the path: a file that points to others on this disk is refused
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except (
            states.Fail,
            states.InvalidArgument,
            states.InvalidGraph,
            states.InvalidProtobuf,
            states.NotImplemented,
            states.RuntimeException,
        ) as error:
            raise CheckpointError(
                f"{path} is not an ONNX file that ONNX Runtime can run: it is damaged, incomplete or something else "
                f"({first_line(error)}). Export it again with `hybridvit export CHECKPOINT --to onnx`."
            ) from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        if trust.foreign and "hybridvit.card" not in metadata:
            self.path, self.metadata = path, dict(metadata)
            self.card, self.spec = described(self.session, content, path)
        else:
            self.describe(path, metadata, content, trust=trust)
            if trust.changed and self.spec.precision == "fp32":  # it may have been converted since
                self.spec = replace(self.spec, precision=precision_of(content))
        taken = self.session.get_inputs()[0]
        self._input, self._dtype = taken.name, DTYPES.get(taken.type, np.float32)  # converters to fp16 change both

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch."""
        given = {self._input: images.astype(self._dtype, copy=False)}
        return [np.asarray(output) for output in self.session.run(None, given)]


class OnnxExporter(Exporter):
    """Through torch.export, never by tracing: Python control flow cannot be baked in unseen."""

    target = "onnx"
    title = "ONNX Runtime"
    runtime = "onnxruntime"
    suffix = ".onnx"
    runner = OnnxRunner
    writer_packages = ("onnx", "onnxscript", "onnxruntime")
    runner_packages = ("onnxruntime",)
    extra = "export"
    rewrites = ("hybridvit.models.fastvit.rewrites:doubling_as_depthwise",)
    precisions = ("fp32", "fp16", "int8")
    takes_lists = True
    opsets = range(17, 26)  # torch 2.14 writes 18 to 25, of which 18 is rewritten as 17

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write one file with operator names as torch chooses them; the weights are inside."""
        import onnx
        import torch

        from hybridvit.export.targets.onnx_graph import onnx_graph

        graph = onnx_graph(model.in_dtype(torch.float16) if model.spec.precision == "fp16" else model)
        if quantisation is None:
            onnx.save(graph, path)
        else:
            quantise_onnx(graph, quantisation, model.spec.batch, path)

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Add `metadata` to the model's properties; of torch's notes, which name local files, module names stay."""
        import onnx

        model = onnx.load(path)
        graph = model.graph
        for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            modules = [entry for entry in noted.metadata_props if entry.key == SCOPES]
            del noted.metadata_props[:]
            noted.metadata_props.extend(modules)
            noted.doc_string = ""
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)
