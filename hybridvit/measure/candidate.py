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


def device_of(runtime: str, asked: str) -> str:
    """Where a runtime computes: PyTorch on the device that is asked for, the others where they are made for."""
    return EXPORTERS[TARGETS[runtime]].device if runtime in TARGETS else asked


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
    device: str  # that its runtime computes on
    file: str = ""  # of an exported runtime, once it is written

    @property
    def label(self) -> str:
        """In messages and as a key."""
        height, width = self.image_size
        form = "" if self.form == "folded" else f", {self.form} form"
        form += f", {self.subject.returns}" if self.subject.returns else ""
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
            **({"returns": self.subject.returns} if self.subject.returns else {}),
        }

    @property
    def target(self) -> str:
        """The export target; "" for torch."""
        return TARGETS.get(self.runtime, "")

    def why_not(self) -> str:
        """Why there is no such candidate, "" if there is."""
        if self.subject.kind == "exported":
            return "" if self.target else f"files of {self.runtime} are not timed here"
        if self.form == "training" and self.runtime not in TORCH:
            return "the training form is for PyTorch alone"
        if self.form == "training" and self.subject.is_folded:
            return "it is folded, and its training form is gone"
        return why_not(self.runtime, self.precision, device=self.device)


def why_not(runtime: str, precision: Precision, *, device: str = "cpu") -> str:
    """Why nothing runs in `runtime` and `precision` here, "" if something does."""
    if runtime in TORCH:
        if precision == "int8":
            return "PyTorch has no int8 here: it is a precision of exported files"
        if precision == "fp16" and device == "cpu":
            return "CPUs compute fp16 by way of fp32, slower: use bf16"
        return ""
    exporter = EXPORTERS[TARGETS[runtime]]
    if precision not in exporter.precisions:
        return f"{runtime} has no {precision}: it has {', '.join(exporter.precisions)}"
    return exporter.why_not_here()


def check_names(kind: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """`asked` without repetitions. Raises UsageError for nothing, or for a name that is not `known`."""
    if not asked:
        raise UsageError(f"There is nothing to measure: no {kind} is named. Known: {', '.join(known)}.")
    for name in asked:
        if name not in known:
            raise UsageError(f"There is no {kind} '{name}'. {nearest(name, known)}.")
    return list(dict.fromkeys(asked))
