"""Measure models against each other: every combination of model, runtime and precision in the same interleaved rounds.

Each candidate lives in processes of its own (worker.py), so that no runtime's threads, memory or crash touch another's,
and one of them takes its turn when it is told: some calls, whose times it returns.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hybridvit.atomic import make_folder
from hybridvit.checkpoints import save_checkpoint
from hybridvit.errors import HybridViTError, OutOfMemory, UsageError
from hybridvit.machine.facts import machine_card
from hybridvit.machine.limits import limits
from hybridvit.main_module import refuse_at_import
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.conditions import Watch
from hybridvit.measure.counts import Counts, counted
from hybridvit.measure.latency import Turn, take_turns
from hybridvit.measure.notes import notes_on
from hybridvit.measure.options import DEFAULTS, BenchOptions
from hybridvit.measure.plan import Plan, plan_of
from hybridvit.measure.prepare import prepared
from hybridvit.measure.processes import Processes
from hybridvit.measure.protocols import given_of
from hybridvit.measure.result import BenchResult, BenchRow, Skipped
from hybridvit.measure.subject import Subject, find_subject, of_pyramid
from hybridvit.measure.worker import Worker
from hybridvit.models.whole import WholeModel

BYTES = 4  # of a number, at most
COPIES = 3  # of the weights, while a file is opened
SPARE = 0.1  # of the free memory, kept so: without it the system reads the libraries from disk anew in every turn
KEEP_SECONDS = 10.0  # between two deliveries of what is measured so far


def bench(
    models: Sequence[str | WholeModel | Subject],
    options: BenchOptions = DEFAULTS,
    *,
    show: Callable[[str], None] = lambda _: None,
    keep: Callable[[BenchResult], None] = lambda _: None,
    planned: Callable[[Sequence[Candidate]], None] = lambda _: None,
) -> BenchResult:
    """Time `models` in every runtime, precision and form that there is of them, interleaved.

    What cannot be measured (a precision that a runtime has not, an exported file that is not what the options ask for,
    a model that does not convert or does not fit into the memory) is left out with the reason, and the rest goes on.
    Ctrl-C ends the measuring: what was measured is returned, and says that it is not complete. Its processes are
    started anew: a script that calls it needs the `if __name__ == "__main__":` that multiprocessing asks for.

    Args:
        models: names of ours or timm's, checkpoints, exported files, or models with a card.
        options: what to measure and how; several batches and image sizes are measured one after the other, each for
            `seconds` at most, and a folder for files is made and serves the next run too.
        show: told what is going on.
        keep: given the result so far, from time to time.
        planned: given all that will be tried, before anything is converted; what it raises ends the run.

    Raises UsageError for an unknown model, runtime, precision, form or device, for packages that are missing, and for
    nothing to measure; if every candidate failed, the error of the first.
    """
    refuse_at_import()
    plan = plan_of(options)
    if not models:
        raise UsageError("There is nothing to measure. Name at least one model.")
    with tempfile.TemporaryDirectory(prefix="hybridvit-bench-") as temporary:
        found = [
            _subject(model, Path(temporary, f"{index}.safetensors"), trust_changed=options.trust_changed)
            for index, model in enumerate(models)
        ]
        if given_of(options).get("returns"):
            found = [of_pyramid(subject) for subject in found]
        subjects = list({subject.name: subject for subject in found}.values())  # named twice, measured once
        groups = list(plan.groups(subjects))
        planned([each for group in groups for each in group if not plan.why_not(each)])
        folder = options.files or Path(temporary)
        make_folder(folder)
        run = _Run(plan, folder, show, keep)
        try:
            for group in groups:
                run.measure(group)
        except KeyboardInterrupt:
            if not run.rows:
                raise
            run.is_complete = False
        return run.result()


class _Run:
    """Collects rows group by group; a group is what takes turns with each other."""

    def __init__(
        self, plan: Plan, folder: Path, show: Callable[[str], None], keep: Callable[[BenchResult], None]
    ) -> None:
        self.plan, self.folder, self.show, self.keep = plan, folder, show, keep
        self.rows: list[BenchRow] = []
        self.skipped: list[Skipped] = []
        self.errors: list[HybridViTError] = []
        self.conditions: dict[str, Any] = {}
        self.is_complete = True
        self.is_pinned = False
        self._counts: dict[tuple[str, tuple[int, int]], Counts | None] = {}
        self._spare = SPARE * (limits(Path.cwd()).memory_usable or 0)

    def measure(self, group: list[Candidate]) -> None:
        """Convert, open and time a group."""
        ready = list(self._prepared(group))
        with ExitStack() as stack:
            opened = self._opened(ready, stack)
            if not opened:
                return
            self.is_pinned = all(processes.is_pinned for processes in opened.values())
            watch = Watch(pid for processes in opened.values() for pid in processes.pids)
            turns = {label: self._turn(label, opened) for label in opened}
            times: dict[str, list[float]] = {}
            plan, kept, done = self.plan, time.monotonic(), 0
            try:
                for times in take_turns(turns, rounds=plan.rounds, calls=plan.calls, budget_s=plan.seconds):
                    done += 1
                    self.show(f"round {done}/{plan.rounds}")
                    if time.monotonic() - kept > KEEP_SECONDS:
                        kept = time.monotonic()
                        self.keep(self.result(self._rows(opened, times), is_complete=False))
            finally:  # Ctrl-C too: the rounds until then are kept
                times = {label: times[label] for label in opened if label in times}
                if times:
                    seen = watch.conditions(times, plan.calls).to_dict()
                    said = [*self.conditions.get("warnings", ()), *seen["warnings"]]
                    self.conditions = seen | {"warnings": list(dict.fromkeys(said))}
                    self.rows += self._rows(opened, times)

    def result(self, more: Sequence[BenchRow] = (), *, is_complete: bool | None = None) -> BenchResult:
        """What there is so far. Raises the first error if nothing could be measured."""
        rows = (*self.rows, *more)
        if not rows and self.errors:
            raise self.errors[0]
        if not rows:
            reasons = "; ".join(f"{each.candidate.subject.name}: {each.reason}" for each in self.skipped)
            raise UsageError(f"There is nothing to measure. {reasons}. Ask for what there is, or name other models.")
        plan = self.plan
        return BenchResult(
            rows=rows,
            skipped=tuple(self.skipped),
            settings={
                "protocol": plan.protocol,
                "rounds": plan.rounds,
                "calls_per_turn": plan.calls,
                "processes": plan.processes,
                "threads": plan.threads,
                "threads_pinned_to_cores": self.is_pinned,
                "statistic": "median over turns of the median of a turn; one call before each turn is not timed",
            },
            conditions=self.conditions,
            machine=machine_card(timed=True),
            notes=tuple(notes_on(rows, processes=plan.processes)),
            is_complete=self.is_complete if is_complete is None else is_complete,
        )

    def _prepared(self, group: list[Candidate]) -> Iterator[Candidate]:
        for number, candidate in enumerate(group):
            if reason := self.plan.why_not(candidate):
                self.skipped.append(Skipped(candidate=candidate, reason=reason))
                continue
            self.show(f"preparing {number + 1}/{len(group)}: {candidate.label}")
            with self._skipping(candidate):
                _check_memory(candidate, self._counted(candidate), self._spare)
                yield prepared(candidate, self.folder)

    def _opened(self, ready: list[Candidate], stack: ExitStack) -> dict[str, Processes]:
        """The processes of each candidate, by its label: first one of each, then more, as far as they can be had."""
        packages = ("torch", "timm") if any(each.subject.kind == "timm" for each in ready) else ("torch",)
        opened: dict[str, Processes] = {}

        def started(candidate: Candidate, takes: int = 0) -> Worker:
            _check_memory(candidate, self._counted(candidate), self._spare, takes=takes)
            worker = Worker(candidate, packages=packages)
            stack.callback(worker.end)
            return worker

        for number, candidate in enumerate(ready):
            self.show(f"opening {number + 1}/{len(ready)}: {candidate.label}")
            with self._skipping(candidate):
                opened[candidate.label] = Processes(started(candidate))
        for number in range(2, self.plan.processes + 1):
            for label, processes in opened.items():
                if not processes.lacks:
                    self.show(f"opening process {number} of {self.plan.processes}: {label}")
                    try:
                        processes.add(started(processes.candidate, int((processes.memory_mib or 0) * 2**20)))
                    except HybridViTError as error:
                        processes.lacks = str(error)
        return opened

    @contextmanager
    def _skipping(self, candidate: Candidate) -> Iterator[None]:
        """Note an error of this candidate, and go on with the others."""
        try:
            yield
        except HybridViTError as error:
            self.errors.append(error)
            self.skipped.append(Skipped(candidate=candidate, reason=str(error)))
            self.show(f"left out: {candidate.label}: {error}")

    def _turn(self, label: str, opened: dict[str, Processes]) -> Turn:
        """The turn of one candidate; if all its processes have died, it is left out from then on."""

        def turn(calls: int) -> Sequence[float]:
            if label in opened:
                with self._skipping(opened[label].candidate):
                    return opened[label].turn(calls)
                del opened[label]
            return ()

        return turn

    def _rows(self, opened: Mapping[str, Processes], times: Mapping[str, Sequence[float]]) -> list[BenchRow]:
        return [
            processes.row(times[label], self.plan.calls, self._counted(processes.candidate))
            for label, processes in opened.items()
            if label in times
        ]

    def _counted(self, candidate: Candidate) -> Counts | None:
        name = candidate.subject.name, candidate.image_size
        if name not in self._counts:
            self._counts[name] = counted(candidate.subject, candidate.image_size)
        return self._counts[name]


def _check_memory(candidate: Candidate, counts: Counts | None, spare: float, *, takes: int = 0) -> None:
    """Refuse, before the system ends some process, what plainly does not fit. An estimate from below.

    `takes` is what another process of the candidate was seen to take, in bytes.
    """
    usable = limits(Path.cwd()).memory_usable
    if usable is None or candidate.device != "cpu":
        return
    height, width = candidate.image_size
    needed = candidate.batch * candidate.subject.in_chans * height * width * BYTES
    if counts is not None:
        needed += COPIES * BYTES * counts.parameters
    needed = max(needed, takes)
    if needed + spare > usable:
        raise OutOfMemory(
            f"A batch of {candidate.batch} and the weights take at least {needed / 2**30:.1f} GiB, and it needs more "
            f"memory than the device has: {usable / 2**30:.1f} GiB are free, {spare / 2**30:.1f} of which have to stay "
            "so. Use a smaller batch, fewer models at a time, or a larger machine."
        )


def _subject(model: str | WholeModel | Subject, path: Path, *, trust_changed: bool) -> Subject:
    """A name as `find_subject` reads it; a model as a file that a child process can read."""
    if isinstance(model, Subject):
        return model
    if isinstance(model, str):
        return find_subject(model, trust_changed=trust_changed)
    save_checkpoint(model, path)
    found = find_subject(str(path))
    return Subject(**vars(found) | {"name": model.card.architecture})
