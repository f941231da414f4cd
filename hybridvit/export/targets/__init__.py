"""Which targets there are, and opening what they wrote."""

from importlib.util import find_spec
from pathlib import Path

from hybridvit.errors import UsageError, nearest
from hybridvit.export.exporter import Exporter
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import NOTHING_ELSE, Trust
from hybridvit.export.targets.coreai import CoreAIExporter
from hybridvit.export.targets.coreml import CoreMLExporter
from hybridvit.export.targets.executorch import ExecuTorchExporter
from hybridvit.export.targets.litert import LiteRTExporter
from hybridvit.export.targets.onnx import OnnxExporter
from hybridvit.export.targets.openvino import OpenVINOExporter
from hybridvit.export.targets.tensorrt import TensorRTExporter
from hybridvit.machine.light import is_light

EXPORTERS: dict[str, Exporter] = {
    exporter.target: exporter
    for exporter in (
        OnnxExporter(),
        OpenVINOExporter(),
        CoreMLExporter(),
        CoreAIExporter(),
        ExecuTorchExporter(),
        LiteRTExporter(),
        TensorRTExporter(),
    )
}


def exporter_for(target: str) -> Exporter:
    """The exporter of a target. Raises UsageError with the nearest names for an unknown one."""
    if target not in EXPORTERS:
        raise UsageError(f"There is no export target '{target}'. {nearest(target, EXPORTERS)}.")
    return EXPORTERS[target]


def load_runner(path: str | Path, *, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> ExportedRunner:
    """Open an exported file, by its suffix. Raises UsageError for a suffix that no target has."""
    path = Path(path)
    exporter = exporter_of(path)
    missing = [name.replace("_", "-") for name in exporter.runner_packages if find_spec(name) is None]
    if missing and is_light():  # an extra would install all that hybridvit requires
        raise UsageError(f"{path} is run by {exporter.title}, missing here. Run: pip install {' '.join(missing)}")
    exporter.require(exporter.runner_packages)
    return exporter.load_runner(path, threads=threads, trust=trust)


def exporter_of(path: Path) -> Exporter:
    """The exporter that wrote a file, by its suffix. Raises UsageError for a suffix that no target has."""
    for exporter in EXPORTERS.values():
        if path.suffix == exporter.suffix:
            return exporter
    suffixes = ", ".join(exporter.suffix for exporter in EXPORTERS.values())
    raise UsageError(f"{path} is no exported model: its suffix is '{path.suffix}', and the known ones are {suffixes}.")
