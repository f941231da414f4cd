"""Write the file that a candidate is measured by, in a process of its own."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hybridvit.atomic import TEMPORARY
from hybridvit.child import ChildDied, in_child
from hybridvit.digest import short_digest
from hybridvit.errors import CheckpointError, ExportError, OutOfMemory
from hybridvit.export.targets import EXPORTERS
from hybridvit.machine.facts import package_versions
from hybridvit.measure.candidate import Candidate

if TYPE_CHECKING:
    from hybridvit.models.backbone import Backbone

NUM_CALIBRATION = 8  # images of noise for int8: what they are changes no time


def prepared(candidate: Candidate, folder: Path) -> Candidate:
    """`candidate` with its file in `folder`, which is written unless it lies there from the same versions.

    Raises UsageError for packages that are missing, ExportError or OutOfMemory where it cannot be converted.
    """
    if not candidate.target or candidate.file:
        return candidate
    exporter = EXPORTERS[candidate.target]
    exporter.require(exporter.packages)
    height, width = candidate.image_size
    name = Path(candidate.subject.name).name.replace(".", "-")
    if candidate.subject.kind == "weights":  # runs give theirs one name
        name += f"-{short_digest(candidate.subject.source)}"
    name += f"-{candidate.subject.returns}" if candidate.subject.returns else ""
    stem = f"{name}-{candidate.runtime}-{candidate.precision}-batch{candidate.batch}-{height}x{width}"
    path = folder / f"{stem}{exporter.suffix}"
    wanted = replace(candidate, file=str(path))
    if candidate.subject.kind != "weights" and _is_current(path, candidate):
        return wanted
    try:
        in_child(partial(write, wanted))
    except ChildDied as death:
        for left in folder.glob(f".{stem}{TEMPORARY}*"):
            left.unlink(missing_ok=True)
        if death.was_killed:
            raise OutOfMemory("converting it was ended by the system, as happens when memory runs out") from None
        raise ExportError(f"its conversion {death}") from None
    return wanted


def _is_current(path: Path, candidate: Candidate) -> bool:
    """Whether a file of this candidate lies there already, written by the packages that are installed."""
    if not path.exists():
        return False
    try:
        runner = EXPORTERS[candidate.target].load_runner(path, threads=1)
    except CheckpointError:
        return False
    versions = runner.metadata.get("hybridvit.versions")
    return runner.card.architecture == candidate.subject.name and versions == json.dumps(package_versions())


def write(candidate: Candidate) -> None:
    """Convert the model as an export does, and compare the file with PyTorch on a batch of noise.

    Raises ExportError for a conversion that fails or is over the limit of its precision; then no file is left.
    """
    import torch

    from hybridvit.export.draft import drafted
    from hybridvit.export.exporter import Quantisation
    from hybridvit.export.graph import given_by
    from hybridvit.export.parity import counted_in, difference, limit_of
    from hybridvit.export.spec import GraphSpec
    from hybridvit.machine.memory import enough_memory
    from hybridvit.measure.subject import build
    from hybridvit.task import find_task

    exporter, size, precision = EXPORTERS[candidate.target], candidate.image_size, candidate.precision
    exporter.import_packages(exporter.packages)
    model = cast("Backbone", build(candidate.subject, "folded", size))  # timm's have the methods that are called
    task = find_task(model.card.task)
    spec = GraphSpec(
        image_size=size,
        channels=candidate.subject.in_chans,
        batch=candidate.batch,
        precision=precision,
        returns=candidate.subject.returns or task.returns,
        answers=task.answers_of(model.card),
        strides=tuple(info["reduction"] for info in model.feature_info) if candidate.subject.returns else (),
    )
    torch.manual_seed(0)
    shape = spec.shape(candidate.batch, size)
    with torch.inference_mode(), enough_memory(shape):
        images = torch.randn(shape)
        expected = given_by(model, spec, images)
    noise = torch.randn(spec.shape(max(NUM_CALIBRATION, candidate.batch), size)) if precision == "int8" else None
    with drafted(model, spec, exporter, Path(candidate.file)) as draft:
        draft.write(None if noise is None else Quantisation(images=noise))
        answered = draft.opened()(images.numpy())
        wanted = {name: each.numpy() for name, each in zip(spec.outputs, expected, strict=True)}
        error = difference(task, spec, answered, wanted)
        limit = limit_of(exporter, task, spec)
        if error > (float("inf") if limit is None else limit) or error == float("inf"):
            raise ExportError(
                f"the file that was written differs from PyTorch by {error:.1e} {counted_in(task, spec)}; the limit "
                f"of {precision} is {'any finite one' if limit is None else f'{limit:.0e}'}"
            )
