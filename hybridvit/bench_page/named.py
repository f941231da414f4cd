"""Models by name as files for the page: converted as `hybridvit bench` converts them, with random weights."""

from collections.abc import Callable
from pathlib import Path

from hybridvit.bench_page.entry import Asked
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.prepare import prepared
from hybridvit.measure.result import without_clock
from hybridvit.measure.subject import find_subject


def converted(name: str, folder: Path, show: Callable[[str], None]) -> Asked:
    """The model that `name` stands for (ours, timm's or a checkpoint), in fp32 and for one image, written to `folder`.

    Raises UsageError for an unknown name or missing packages, ExportError for a model that cannot be converted.
    """
    from hybridvit.measure.counts import counted

    subject = find_subject(name)
    candidate = Candidate(
        subject=subject,
        form="folded",
        runtime="onnxruntime",
        precision="fp32",
        batch=1,
        image_size=subject.image_size,
        threads=1,
        device="cpu",
    )
    show(f"converting {name}")
    path = Path(prepared(candidate, folder).file)
    return Asked(
        name=Path(subject.name).stem if subject.kind == "weights" else subject.name,
        path=path,
        known={"family": subject.family, **without_clock(candidate, counted(subject, subject.image_size))},
    )
