"""What `bench` will do: every option decided and checked before anything is converted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any

from hybridvit.errors import UsageError
from hybridvit.export.spec import PRECISIONS
from hybridvit.export.targets import EXPORTERS
from hybridvit.machine.facts import check_threads, usable_cores
from hybridvit.machine.threads import POLICY, given_environment
from hybridvit.measure.candidate import RUNTIMES, TARGETS, TORCH, Candidate, check_names, device_of
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
    batch: Sequence[int | None] = (None,)  # None: that of a file that takes no other, else 1
    image_size: Sequence[tuple[int, int] | None] = (None,)  # None: each model's own
    threads: int
    device: str = "cpu"
    rounds: int = 50
    calls: int = 3
    processes: int = 3  # of each candidate
    seconds: float | None = None
    protocol: str = ""
    asked: frozenset[str] = frozenset()  # the options that the user or a protocol has set

    def groups(self, subjects: Sequence[Subject]) -> Iterator[list[Candidate]]:
        """The candidates of each batch and image size, which take turns with each other; possible or not (`why_not`).

        An exported file has one, in its own runtime, whatever is asked for, and a subject that names runtimes has
        those; the training form is for PyTorch, and beside it no other runtime is said to lack it.
        """
        for batch, size in product(self.batch, self.image_size):
            yield [each for subject in subjects for each in self._candidates(subject, batch, size)]

    def _candidates(self, subject: Subject, batch: int | None, size: tuple[int, int] | None) -> Iterator[Candidate]:
        shared: dict[str, Any] = {"subject": subject, "batch": batch or subject.batch or 1, "threads": self.threads}
        shared |= {"image_size": size or subject.image_size}
        runtimes, precisions, forms = self.runtimes, self.precisions, self.forms
        if subject.runtimes:
            runtimes, precisions = subject.runtimes, (subject.precision,)
        if subject.kind == "exported":
            shared, forms = shared | {"file": subject.source}, ("folded",)
        with_torch = any(runtime in TORCH for runtime in runtimes)
        for runtime, form, precision in product(runtimes, FORMS, PRECISIONS):
            has_form = form == "folded" or runtime in TORCH or not with_torch
            if form in forms and has_form and precision in precisions:
                device = device_of(runtime, self.device)
                yield Candidate(**shared, form=form, runtime=runtime, precision=precision, device=device)

    def why_not(self, candidate: Candidate) -> str:
        """Why it is not measured: it cannot be, or is not what was asked for; "" if it is."""
        subject, kind = candidate.subject, candidate.device
        if "device" in self.asked and kind.partition(":")[0] != self.device.partition(":")[0]:
            return f"{candidate.runtime} computes on {kind}, and --device {self.device} is asked for"
        if subject.kind != "exported":
            return candidate.why_not()
        height, width = candidate.image_size
        for name, asked, has, is_said in (
            ("runtimes", self.runtimes, candidate.runtime, "it runs in"),
            ("precisions", self.precisions, candidate.precision, "its numbers are"),
            ("forms", self.forms, candidate.form, "it is"),
        ):
            if name in self.asked and has not in asked:
                return f"{is_said} {has}, and --{name} {' '.join(asked)} is asked for"
        if subject.batch not in (None, candidate.batch):
            return f"it takes a batch of {subject.batch}, and --batch {candidate.batch} is asked for"
        if not subject.takes(candidate.image_size):
            return f"it takes {_sizes(subject)} px, and --image_size {height}x{width} is asked for"
        return candidate.why_not()


def _sizes(subject: Subject) -> str:
    """The image sizes that an exported file takes, in words."""
    if subject.range_px is not None:
        return "sides from {} to {}".format(*subject.range_px)
    return " or ".join(f"{height}x{width}" for height, width in subject.sizes)


def plan_of(options: BenchOptions) -> Plan:
    """The plan that `options` make here. Raises UsageError for what cannot be measured, or not on this machine."""
    asked = given_of(options)
    given = {"threads": usable_cores(), "runtimes": None, "asked": frozenset(asked)} | asked
    given["runtimes"] = installed_runtimes(given["runtimes"], device=given.get("device", "cpu"))
    plan = Plan(**{name: value for name, value in given.items() if name not in ("files", "returns", "trust_changed")})
    check_names("precision", plan.precisions, PRECISIONS)
    check_names("form", plan.forms, FORMS)
    for batch in plan.batch:
        if batch is not None and batch < 1:
            raise UsageError(f"The batch is {batch}, but at least one image must be in it. Use --batch 1.")
    if plan.calls < 1:
        raise UsageError(f"calls is {plan.calls}, but at least one call of a turn must be timed. Use --calls 3.")
    check_rounds(plan.rounds)
    check_processes(plan.processes, plan.rounds)
    check_threads(plan.threads)
    if given_environment().get(POLICY, "").upper() == "ACTIVE":
        raise UsageError(
            f"{POLICY} is ACTIVE: threads of the candidates that wait for their turn would keep the cores busy while "
            "another is timed. Leave it unset."
        )
    check_device(plan.device)
    return plan


def check_processes(processes: int, rounds: int) -> None:
    """Raise UsageError for no process, or for more than there are turns for."""
    if processes < 1:
        raise UsageError(f"processes is {processes}, but each candidate needs one at least. Use --processes 1.")
    if processes > rounds:
        raise UsageError(
            f"processes is {processes}, but with {rounds} rounds a candidate has {rounds} turns, and each process "
            f"needs one. Use --rounds {processes}, or fewer processes."
        )


def check_device(device: str) -> None:
    """Raise UsageError for a device of PyTorch that is not measured on, or not here."""
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"The device is '{device}', but this measures on cpu or cuda. Use --device cpu.")
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            return
        raise UsageError(f"The device is '{device}', but torch sees no CUDA GPU here. Use --device cpu.")


def installed_runtimes(asked: Sequence[str] | None, *, device: str = "cpu") -> list[str]:
    """The runtimes to measure, by default those of PREFERRED that are installed and compute on `device`.

    Raises UsageError for an unknown one, or one whose packages are missing.
    """
    if asked is None:
        there = (name for name in PREFERRED if device_of(name, device) == device)
        return [name for name in there if name in TORCH or all(map(find_spec, EXPORTERS[TARGETS[name]].packages))]
    chosen = check_names("runtime", asked, RUNTIMES)
    for name in chosen:
        if name in TARGETS:
            EXPORTERS[TARGETS[name]].require(EXPORTERS[TARGETS[name]].packages)
    return chosen
