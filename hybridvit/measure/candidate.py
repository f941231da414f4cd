"""One thing to time: a model in a form, a runtime, a precision, for a batch of a size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridvit.errors import UsageError, nearest
from hybridvit.export.spec import Precision
from hybridvit.export.targets import EXPORTERS
from hybridvit.measure.subject import Form, Subject

TORCH = ("torch", "torch-compile")
# runtime -> the export target that writes for it
TARGETS = {exporter.runtime: target for target, exporter in EXPORTERS.items() if exporter.runtime}
RUNTIMES = (*TORCH, *TARGETS)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """As plain values that a child process can be given."""

    subject: Subject
    form: Form
    runtime: str
    precision: Precision
    batch: int
    image_size: tuple[int, int]  # height, width in pixels
    threads: int
    device: str  # of torch; the others run where they are made for
    file: str = ""  # of an exported runtime, once it is written

    @property
    def label(self) -> str:
        """In messages and as a key."""
        height, width = self.image_size
        form = "" if self.form == "folded" else f", {self.form} form"
        return f"{self.subject.name}{form}, {self.runtime}, {self.precision}, batch {self.batch}, {height}x{width}"

    def record(self) -> dict[str, Any]:
        """What a record of its times says of it."""
        height, width = self.image_size
        return {
            "model": self.subject.name,
            "family": self.subject.family,
            "form": self.form,
            "runtime": self.runtime,
            "precision": self.precision,
            "device": self.device,
            "batch": self.batch,
            "image_size": f"{height}x{width}",
            "threads": self.threads,
        }

    @property
    def target(self) -> str:
        """The export target; "" for torch."""
        return TARGETS.get(self.runtime, "")

    def why_not(self) -> str:
        """Why there is no such candidate, "" if there is."""
        if self.subject.kind == "exported":
            return ""
        if self.runtime in TORCH:
            if self.precision == "int8":
                return "PyTorch has no int8 here: it is a precision of exported files"
            if self.precision == "fp16" and self.device == "cpu":
                return "CPUs compute fp16 by way of fp32, slower: use bf16"
            return ""
        exporter = EXPORTERS[self.target]
        if self.precision not in exporter.precisions:
            return f"{self.runtime} has no {self.precision}: it has {', '.join(exporter.precisions)}"
        return exporter.why_not_here()


def check_names(kind: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """`asked` without repetitions. Raises UsageError for nothing, or for a name that is not `known`."""
    if not asked:
        raise UsageError(f"There is nothing to measure: no {kind} is named. Known: {', '.join(known)}.")
    for name in asked:
        if name not in known:
            raise UsageError(f"There is no {kind} '{name}'. Nearest: {nearest(name, known)}.")
    return list(dict.fromkeys(asked))
