"""Export in a process of its own: converters clash inside one, print what they like, and may end it."""

import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hybridvit.atomic import TEMPORARY
from hybridvit.child import ChildDied, in_child
from hybridvit.errors import ExportError, HybridViTError, OutOfMemory, UsageError
from hybridvit.export.options import DEFAULTS, ExportOptions
from hybridvit.export.targets import exporter_for

if TYPE_CHECKING:
    from hybridvit.export.pipeline import ExportReport
    from hybridvit.models.backbone import Backbone
    from hybridvit.models.whole import WholeModel


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """One checkpoint for one target."""

    checkpoint: str
    output: str
    to: str
    options: ExportOptions = DEFAULTS
    images: tuple[str, ...] = ()  # files to compare on
    calibration: str | None = None  # int8: a labelled folder; see `plan_from_folder` for the rest
    labelled: str | None = None
    calibration_images: int | None = None
    max_drop: float | None = None
    keep: tuple[str, ...] = ()
    zero_shot: str | None = None  # file with the texts that become the head of an image tower
    head_options: Mapping[str, Any] = field(default_factory=dict)  # other ones than the checkpoint's


def run_apart(job: ExportJob, *, show: Callable[[str], None] = lambda _: None) -> "ExportReport":
    """Carry out `job` in a child process and return its report; `show` is given what it printed.

    Raises the error of the child; ExportError or OutOfMemory if it died.
    """
    try:
        return in_child(partial(carry_out, job), show=show)
    except ChildDied as death:
        _clear(Path(job.output))
        raise _death(job, death) from None
    except KeyboardInterrupt:  # which may have ended the child before it could
        _clear(Path(job.output))
        raise


def _death(job: ExportJob, death: ChildDied) -> HybridViTError:
    if death.was_killed:
        return OutOfMemory(
            f"The export to '{job.to}' was killed, as happens when memory runs out. Nothing was written. Close other "
            "programs, or use a machine with more memory."
        )
    from hybridvit.export.draft import PROVING

    if PROVING not in death.last_lines:
        return ExportError(
            f"The export to '{job.to}' {death}. Nothing was written. Another version of the converter or of torch may "
            "do it; --verbose shows all it printed."
        )
    fix = f"Another version of {' or '.join(exporter_for(job.to).runner_packages)} may run it"
    if (job.to, job.options.precision) == ("openvino", "int8"):
        fix += (
            ". If it dies of integer instructions of this CPU, keep more layers in floating point, as with --keep "
            "'stages.3*' 'expand*', or set the environment variable ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16 (AVX2 on older "
            "CPUs) here and wherever the file runs"
        )
    return ExportError(
        f"The runtime of the target '{job.to}' died while it ran the written file to prove it: the process {death}. "
        f"Nothing was written. {fix}; --verbose shows all it printed."
    )


def _clear(output: Path) -> None:
    """Remove what a child that ended could not: the temporary files beside its output."""
    for left in output.parent.glob(f".{output.stem}{TEMPORARY}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def carry_out(job: ExportJob) -> "ExportReport":
    """Do `job` in this process, which prints how far it is."""
    _tell_progress()
    from hybridvit.checkpoints import load
    from hybridvit.data.preprocess import prepare
    from hybridvit.export.draft import prepared_for
    from hybridvit.export.embeddings import check_is_tower
    from hybridvit.export.pipeline import export
    from hybridvit.export.quantise.plan import plan_from_folder
    from hybridvit.export.resolve import resolve
    from hybridvit.models.zero_shot import read_text_matrix, with_text_matrix

    matrix = None if job.zero_shot is None else read_text_matrix(job.zero_shot)
    model = load(job.checkpoint)
    if matrix is not None:
        check_is_tower(model.card, job.checkpoint)
        model = with_text_matrix(cast("Backbone", model), matrix)
    if job.head_options:
        model = _with_head_options(model, job.head_options)
    prepared = prepared_for(model.card.preprocessing, resolve(model, model.card, exporter_for(job.to), job.options))
    images = [prepare(path, prepared) for path in job.images]
    plan = None
    if job.calibration is not None:
        plan = plan_from_folder(
            job.calibration,
            model.card,
            labelled=job.labelled,
            num_calibration=job.calibration_images,
            max_drop=job.max_drop,
            keep=job.keep,
        )
    return export(model, job.output, to=job.to, options=job.options, images=images, quantisation=plan)


def _with_head_options(model: "WholeModel", options: Mapping[str, Any]) -> "WholeModel":
    from hybridvit.build import with_head_options
    from hybridvit.models.with_head import WithHead

    if not isinstance(model, WithHead):
        raise UsageError(
            f"head_options are given, but a model of the task '{model.card.task}' answers with its backbone's "
            "classifier. Leave them out."
        )
    return with_head_options(model, options)


def _tell_progress() -> None:
    """Print what the package logs: how far a process came is known from what it said last."""
    log = logging.getLogger("hybridvit")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stdout))
