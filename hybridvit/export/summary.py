"""An export in plain values: what a command prints, and what crosses from one process to another."""

from dataclasses import dataclass

from hybridvit.export.pipeline import ExportReport
from hybridvit.export.quantise.quality import Quality
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets import exporter_for


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """The result of one export."""

    architecture: str
    target: str
    precision: str
    path: str
    size_bytes: int  # of all its files
    takes: str
    gives: str
    folding_error: float  # largest difference / largest output, by folding alone
    max_error: float  # the same for the file
    limit: float | None  # None: int8
    compared: str  # on what
    not_run: str = ""  # why files of the target do not run here, and what stood in for that
    verify_with: str = ""  # the script that does the rest where they run
    quality: Quality | None = None  # int8: what it costs


def summary(report: ExportReport) -> ExportSummary:
    """The plain values of a report."""
    spec, parity, weights = report.spec, report.parity, report.weights
    sizes = ", ".join(f"{height}x{width}" for height, width in parity.image_sizes)
    compared = f"random batches of {', '.join(map(str, parity.batch_sizes))} and drawn pictures at {sizes} px"
    if parity.real_images:
        compared += f"; {parity.real_images} images, same answer on {parity.num_same}"
    return ExportSummary(
        architecture=report.architecture,
        target=report.target,
        precision=spec.precision,
        path=str(report.path),
        size_bytes=report.size_bytes,
        takes=takes(spec),
        gives=gives(spec),
        folding_error=report.folding.max_error,
        max_error=parity.max_error,
        limit=parity.limit,
        compared=compared,
        not_run=""
        if weights is None
        else f"{weights.reason}: computed from the written program, {weights.num_tensors} weights compared to "
        f"{weights.max_error:.0e}",
        verify_with="" if weights is None else exporter_for(report.target).companions(report.path)[0].name,
        quality=report.quality,
    )


def takes(spec: GraphSpec) -> str:
    """The input in words."""
    if spec.range_px is not None:
        sides = "height x width"
        between = f", each side from {spec.range_px[0]} to {spec.range_px[1]}"
    else:
        sides, between = " or ".join(f"{height} x {width}" for height, width in spec.sizes), ""
    batch = "batch" if spec.batch is None else str(spec.batch)
    if spec.pixels == "uint8":
        return f"{batch} x {sides} x {spec.channels}{between}, uint8 pixels"
    return f"{batch} x {spec.channels} x {sides}{between}, fp32"


def gives(spec: GraphSpec) -> str:
    """The outputs in words."""
    if spec.top_k is not None:
        return f"probabilities and indices of the {spec.top_k} most probable classes"
    return ", ".join(spec.outputs)
