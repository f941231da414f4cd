"""What `bench` will do: every option decided and checked before anything is converted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch

from hybridvit.errors import UsageError
from hybridvit.export.spec import PRECISIONS
from hybridvit.export.targets import EXPORTERS
from hybridvit.machine.facts import check_threads, usable_cores
from hybridvit.machine.threads import POLICY, given_environment
from hybridvit.measure.candidate import RUNTIMES, TARGETS, TORCH, Candidate, check_names
from hybridvit.measure.latency import check_rounds
from hybridvit.measure.options import BenchOptions
from hybridvit.measure.protocols import given_of
from hybridvit.measure.subject import FORMS, Subject

PREFERRED = ("torch", "onnxruntime", "openvino")  # measured where they are installed, if none is named


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`BenchOptions` with the defaults of what neither the user nor a protocol has set."""

    runtimes: Sequence[str]
    precisions: Sequence[str] = ("fp32",)
    forms: Sequence[str] = ("folded",)
    batch: Sequence[int] = (1,)
    image_size: Sequence[tuple[int, int] | None] = (None,)  # None: each model's own
    threads: int
    device: str = "cpu"
    rounds: int = 50
    calls: int = 3
    seconds: float | None = None
    protocol: str = ""

    def groups(self, subjects: Sequence[Subject]) -> Iterator[list[Candidate]]:
        """The candidates of each batch and image size, which take turns with each other; possible or not (`why_not`).

        An exported file has one, in its own runtime, and so has a subject that names one; the training form is for
        PyTorch alone.
        """
        for batch, size in product(self.batch, self.image_size):
            yield [each for subject in subjects for each in self._candidates(subject, batch, size)]

    def _candidates(self, subject: Subject, batch: int, size: tuple[int, int] | None) -> Iterator[Candidate]:
        shared: dict[str, Any] = {"subject": subject, "batch": batch, "image_size": size or subject.image_size}
        shared |= {"threads": self.threads, "device": self.device}
        if subject.kind == "exported":
            of_file: dict[str, Any] = {"runtime": subject.runtime, "precision": subject.precision}
            yield Candidate(**shared, **of_file, form="folded", file=subject.source)
            return
        runtimes, precisions = self.runtimes, self.precisions
        if subject.runtime:
            runtimes, precisions = (subject.runtime,), (subject.precision,)
        for runtime, form, precision in product(runtimes, FORMS, PRECISIONS):
            has_form = form == "folded" or (runtime in TORCH and not subject.is_folded)
            if form in self.forms and has_form and precision in precisions:
                yield Candidate(**shared, form=form, runtime=runtime, precision=precision)


def plan_of(options: BenchOptions) -> Plan:
    """The plan that `options` make here. Raises UsageError for what cannot be measured, or not on this machine."""
    given = {"threads": usable_cores(), "runtimes": None} | given_of(options)
    given["runtimes"] = installed_runtimes(given["runtimes"])
    plan = Plan(**{name: value for name, value in given.items() if name not in ("files", "trust_changed")})
    check_names("precision", plan.precisions, PRECISIONS)
    check_names("form", plan.forms, FORMS)
    for batch in plan.batch:
        if batch < 1:
            raise UsageError(f"The batch is {batch}, but at least one image must be in it. Use --batch 1.")
    if plan.calls < 1:
        raise UsageError(f"calls is {plan.calls}, but at least one call of a turn must be timed. Use --calls 3.")
    check_rounds(plan.rounds)
    check_threads(plan.threads)
    if given_environment().get(POLICY, "").upper() == "ACTIVE":
        raise UsageError(
            f"{POLICY} is ACTIVE: threads of the candidates that wait for their turn would keep the cores busy while "
            "another is timed. Leave it unset."
        )
    check_device(plan.device)
    return plan


def check_device(device: str) -> None:
    """Raise UsageError for a device of PyTorch that is not measured on, or not here."""
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"The device is '{device}', but this measures on cpu or cuda. Use --device cpu.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"The device is '{device}', but torch sees no CUDA GPU here. Use --device cpu.")


def installed_runtimes(asked: Sequence[str] | None) -> list[str]:
    """The runtimes to measure, by default those of PREFERRED that are installed.

    Raises UsageError for an unknown one, or one whose packages are missing.
    """
    if asked is None:
        return [name for name in PREFERRED if name in TORCH or all(map(find_spec, EXPORTERS[TARGETS[name]].packages))]
    chosen = check_names("runtime", asked, RUNTIMES)
    for name in chosen:
        if name in TARGETS:
            EXPORTERS[TARGETS[name]].require(EXPORTERS[TARGETS[name]].packages)
    return chosen
