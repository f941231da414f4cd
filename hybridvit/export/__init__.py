"""Take a model to the runtime that it is deployed on, proven equal."""

from hybridvit.export.export import EXPORTERS, ExportReport, export, load_runner
from hybridvit.export.exporter import Exporter
from hybridvit.export.parity import Parity
from hybridvit.export.runners import Runner, TorchRunner

__all__ = ["EXPORTERS", "ExportReport", "Exporter", "Parity", "Runner", "TorchRunner", "export", "load_runner"]
