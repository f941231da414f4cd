"""An export in plain values: what a command prints, and what crosses from one process to another."""

from dataclasses import dataclass

from hybridvit.export.exporter import WeightCheck
from hybridvit.export.pipeline import ExportReport
from hybridvit.export.spec import GraphSpec


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """The result of one export, of JSON types alone."""

    architecture: str
    target: str
    precision: str
    path: str
    size_bytes: int  # of all its files
    takes: str
    gives: str
    folding_error: float  # largest difference / largest output, by folding alone
    max_error: float  # the same for the file; of a weight, where files of the target do not run here
    limit: float | None
    compared: str  # on what
    verify_with: str = ""  # the script that does the rest where files of the target run


def summary(report: ExportReport) -> ExportSummary:
    """The plain values of a report."""
    spec, proof = report.spec, report.proof
    if isinstance(proof, WeightCheck):
        limit, compared = None, f"{proof.num_tensors} weights inside the file: {proof.reason}"
    else:
        limit = proof.limit
        sizes = ", ".join(f"{height}x{width}" for height, width in proof.image_sizes)
        compared = f"random batches of {', '.join(map(str, proof.batch_sizes))} and drawn pictures at {sizes} px"
        if proof.real_images:
            compared += f"; {proof.real_images} images, same first answer on {proof.same_top1}"
    return ExportSummary(
        architecture=report.architecture,
        target=report.target,
        precision=spec.precision,
        path=str(report.path),
        size_bytes=report.size_bytes,
        takes=takes(spec),
        gives=gives(spec),
        folding_error=report.folding.max_error,
        max_error=proof.max_error,
        limit=limit,
        compared=compared,
        verify_with=proof.verify_with if isinstance(proof, WeightCheck) else "",
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
    return ", ".join(spec.outputs) if spec.returns == "pyramid" else spec.returns
