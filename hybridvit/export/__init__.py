"""Take a model to the runtime that it is deployed on, proven equal.

`hybridvit.export.pipeline.export(model, "m.onnx")` writes; `load_runner("m.onnx")` opens, without torch.
"""

from hybridvit.export.exporter import Exporter
from hybridvit.export.runners import ExportedRunner, Runner, TorchRunner
from hybridvit.export.targets import EXPORTERS, load_runner

__all__ = ["EXPORTERS", "ExportedRunner", "Exporter", "Runner", "TorchRunner", "load_runner"]
