"""Take a model to the runtime that it is deployed on, proven equal.

`hybridvit.export(model, "m.onnx")`, which is `hybridvit.api.export`, writes; `load_runner("m.onnx")` opens, without
torch.
"""

import sys

from hybridvit.callable_package import CallablePackage
from hybridvit.export.exporter import Exporter
from hybridvit.export.runners import ExportedRunner, Runner, TorchRunner
from hybridvit.export.targets import EXPORTERS, load_runner

__all__ = ["EXPORTERS", "ExportedRunner", "Exporter", "Runner", "TorchRunner", "load_runner"]

sys.modules[__name__].__class__ = CallablePackage
