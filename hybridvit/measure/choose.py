"""The best configuration on this device: the most accurate that is fast enough, or the fastest that loses little."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hybridvit.errors import HybridViTError, UsageError
from hybridvit.export.apart import ExportJob, run_apart
from hybridvit.export.options import ExportOptions
from hybridvit.export.spec import Precision
from hybridvit.export.targets import EXPORTERS
from hybridvit.loading import open_runner
from hybridvit.measure.bench import bench, installed_runtimes
from hybridvit.measure.candidate import TARGETS, TORCH
from hybridvit.measure.counts import counted
from hybridvit.measure.latency import MIN_ROUNDS
from hybridvit.measure.result import BenchResult, Skipped
from hybridvit.measure.subject import Subject, find_subject
from hybridvit.models.registry import FAMILIES, VARIANTS
from hybridvit.task import find_task

SPREAD = 3.0
"""A model is not measured if its multiply-adds predict more than so many times the time that is allowed: between
networks of one kind, time per multiply-add differs by less on one device."""
ORDINARY = "torch"
BATCH = 32  # images in memory at a time, for an accuracy


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way to run a model, with the evidence."""

    model: str  # name or checkpoint
    record: Mapping[str, Any]  # of the benchmark
    top1: float | None  # in %: measured, or published of fp32
    drop: float | None  # points below the checkpoint in PyTorch in fp32; None: not measured
    speed: float | None  # times as fast as the ordinary way; None: that could not be measured

    def fits(self, max_latency_ms: float | None, max_drop: float) -> bool:
        """Whether it is fast enough (if that is asked), and loses no more than is allowed as far as is known."""
        if self.drop is not None and self.drop > max_drop:
            return False
        return max_latency_ms is None or (self.top1 is not None and self.record["high_ms"] <= max_latency_ms)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration that was chosen, all that were measured, and what was not."""

    chosen: Configuration | None  # None: nothing fits
    configurations: tuple[Configuration, ...]  # best first
    left_out: tuple[str, ...]  # with the reason
    rule: str
    accuracy_from: str
    result: BenchResult


def choose(
    models: Sequence[str] | None = None,
    *,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[Precision] = ("fp32",),
    max_latency_ms: float | None = None,
    max_drop: float = 0.5,
    data: Path | None = None,
    calibration: Path | None = None,
    image_size: tuple[int, int] | None = None,
    threads: int | None = None,
    rounds: int = 50,
    budget_s: float | None = None,
    files: Path,
    show: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Measure `models` in `runtimes` and `precisions` at batch 1, and choose.

    With `max_latency_ms`: the most accurate configuration whose median, at the upper end of its interval, is below it.
    Without: the fastest that loses at most `max_drop` points of top-1.

    Accuracies of models by name are the published ones, of fp32; what another precision costs is then not known, and
    is said to be so. Those of checkpoints are measured on `data`.

    Args:
        models: names, or with `data` checkpoints; by default all of ours that weights are published of.
        runtimes: as `bench`; the ordinary way (timm's model or else ours, PyTorch, eager, folded, fp32) is measured
            beside them.
        precisions: of fp32, fp16, bf16, int8.
        max_latency_ms: per image.
        max_drop: points of top-1; with int8 layers are kept in floating point until no more is lost.
        data: folder of class folders to measure the accuracy of checkpoints on.
        calibration: folder of class folders that int8 is calibrated on.
        image_size: (height, width) in pixels; by default each model's own.
        threads: of every runtime.
        rounds: as `bench`.
        budget_s: as `bench`.
        files: folder for the files that are written, the chosen one among them.
        show: told what is going on.

    Raises UsageError for options that contradict each other, and what `bench` and `export` raise.
    """
    subjects = [find_subject(name) for name in models or published()]
    _check(subjects, precisions, max_latency_ms, max_drop, data, calibration)
    chosen_runtimes = installed_runtimes(runtimes)
    left_out: list[str] = []
    accuracies: dict[str, Measured] = {}
    if data is None:
        measured = subjects
        if max_latency_ms is not None:
            measured, left_out = _plausible(subjects, chosen_runtimes, max_latency_ms, threads, image_size)
    else:
        judge = _Judge(data, calibration, max_drop, image_size, files, show)
        for subject in subjects:
            judge.judge(subject, [(each, precision) for each in chosen_runtimes for precision in precisions])
        measured, accuracies, left_out = judge.subjects, judge.accuracies, judge.left_out
    ordinary = {subject.name: _ordinary(subject) for subject in subjects}
    beside = [each for each in ordinary.values() if each not in measured]
    result = bench(
        [*measured, *beside],
        # of a checkpoint the other runtimes have their files, whose accuracy is known
        runtimes=list(dict.fromkeys([ORDINARY, *(each for each in chosen_runtimes if data is None or each in TORCH)])),
        precisions=list(dict.fromkeys(["fp32", *precisions])) if data is None else ["fp32"],
        image_sizes=(image_size,),
        threads=threads,
        rounds=rounds,
        budget_s=budget_s,
        files=files,
        show=show,
    )
    not_asked = {each.name for each in beside}
    configurations = [
        _configuration(record, accuracies.get(record["model"]), ordinary, result)
        for record in result.records()
        if record["model"] not in not_asked and record["runtime"] in chosen_runtimes
    ]
    fitting = [each for each in configurations if each.fits(max_latency_ms, max_drop)]
    order = _by_accuracy if max_latency_ms is not None else _by_time
    return Choice(
        chosen=min(fitting, key=order, default=None),
        configurations=tuple(sorted(configurations, key=order)),
        left_out=(*left_out, *(_reason(each) for each in result.skipped if not each.candidate.why_not())),
        rule=f"the most accurate with a median of at most {max_latency_ms:g} ms (upper end of its 95 % interval)"
        if max_latency_ms is not None
        else f"the fastest that loses at most {max_drop:g} points of top-1",
        accuracy_from="published, of fp32" if data is None else f"measured on {data}",
        result=result,
    )


def _configuration(
    record: Mapping[str, Any], known: "Measured | None", ordinary: Mapping[str, Subject], result: BenchResult
) -> Configuration:
    """A measured row with its accuracy, and how much faster than the ordinary way it is."""
    of = known.checkpoint if known else record["model"]
    usual = {
        each["model"]: each["median_ms"]
        for each in result.records()
        if (each["runtime"], each["precision"]) == (ORDINARY, "fp32")
    }
    slow = usual.get(ordinary[of].name)
    return Configuration(
        model=of,
        record=record,
        top1=known.top1 if known else record["top1"],
        drop=known.drop if known else None,
        speed=slow / record["median_ms"] if slow else None,
    )


def published() -> list[str]:
    """Our variants that weights are published of."""
    return [name for name, variant in VARIANTS.items() if variant.published.weights]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The accuracy of one file."""

    checkpoint: str  # that it was made from
    top1: float
    drop: float  # below the checkpoint's own


class _Judge:
    """Exports checkpoints in several ways, and measures what each file gets right."""

    def __init__(
        self,
        data: Path,
        calibration: Path | None,
        max_drop: float,
        image_size: tuple[int, int] | None,
        files: Path,
        show: Callable[[str], None],
    ) -> None:
        self.data, self.calibration, self.max_drop = data, calibration, max_drop
        self.image_size, self.files, self.show = image_size, files, show
        self.subjects: list[Subject] = []
        self.accuracies: dict[str, Measured] = {}
        self.left_out: list[str] = []

    def judge(self, checkpoint: Subject, ways: Sequence[tuple[str, Precision]]) -> None:
        """The checkpoint itself, in PyTorch, and one file per way."""
        top1 = top1_of(checkpoint.source, self.data)
        self.subjects.append(checkpoint)
        self.accuracies[checkpoint.name] = Measured(checkpoint=checkpoint.name, top1=top1, drop=0.0)
        for runtime, precision in ways:
            if runtime in TORCH or precision not in EXPORTERS[TARGETS[runtime]].precisions:
                continue
            path = self.files / f"{Path(checkpoint.source).stem}-{runtime}-{precision}"
            path = path.with_name(path.name + EXPORTERS[TARGETS[runtime]].suffix)
            self.show(f"exporting {path.name}")
            try:
                run_apart(self._job(checkpoint, runtime, precision, path))
                of_file = top1_of(str(path), self.data)
            except HybridViTError as error:
                self.left_out.append(f"{checkpoint.name}, {runtime}, {precision}: {error}")
                continue
            found = find_subject(str(path))
            self.subjects.append(found)
            self.accuracies[found.name] = Measured(checkpoint=checkpoint.name, top1=of_file, drop=top1 - of_file)

    def _job(self, checkpoint: Subject, runtime: str, precision: Precision, path: Path) -> ExportJob:
        job = ExportJob(
            checkpoint=checkpoint.source,
            output=str(path),
            to=TARGETS[runtime],
            options=ExportOptions(precision=precision, batch=1, image_size=self.image_size),
        )
        if precision != "int8":
            return job
        return replace(job, calibration=str(self.calibration), labelled=str(self.data), max_drop=self.max_drop)


def top1_of(path: str, data: Path) -> float:
    """Top-1 accuracy in % of any file, on a folder of class folders.

    Raises DatasetError for a folder whose classes are not the model's.
    """
    from hybridvit.data.loader import make_eval_loader
    from hybridvit.evaluate.run import evaluate
    from hybridvit.export.quantise.quality import value_of

    runner = open_runner(path)
    task = find_task(runner.card.task)
    loader = make_eval_loader(task.labelled(str(data), runner.card), collate=task.collate, batch_size=BATCH)
    found = evaluate(lambda batch: runner(batch.inputs), task, loader, runner.card)
    return value_of(found.scores, task.headline)


def _check(
    subjects: Sequence[Subject],
    precisions: Sequence[str],
    max_latency_ms: float | None,
    max_drop: float,
    data: Path | None,
    calibration: Path | None,
) -> None:
    if max_latency_ms is not None and not (math.isfinite(max_latency_ms) and max_latency_ms > 0):
        raise UsageError(f"max_latency_ms is {max_latency_ms:g}, but must be a time above 0. Use --max_latency_ms 8.")
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop is {max_drop:g}, but must be a number of percentage points from 0, such as 0.5.")
    for subject in subjects:
        if subject.kind == "exported":
            raise UsageError(f"{subject.name} is exported already, so there is nothing to choose. Give its checkpoint.")
        if (subject.kind == "weights") != (data is not None):
            raise UsageError(
                f"{subject.name} is a checkpoint, whose accuracy only labelled images tell. Give --data with a folder "
                "of class folders."
                if data is None
                else f"{subject.name} has no trained weights here, so --data says nothing of it. Give a checkpoint, or "
                "leave --data out for published accuracies."
            )
    if "int8" in precisions and data is not None and calibration is None:
        raise UsageError("int8 needs images to calibrate on. Give --calibration with a folder of class folders.")
    if data is None and calibration is not None:
        raise UsageError("There are images to calibrate on, but none to measure the accuracy on. Give --data as well.")


def _plausible(
    subjects: Sequence[Subject],
    runtimes: Sequence[str],
    max_latency_ms: float,
    threads: int | None,
    image_size: tuple[int, int] | None,
) -> tuple[list[Subject], list[str]]:
    """Those that could be fast enough at the time per multiply-add of the smallest, and why the others are not."""
    costs: dict[str, int] = {}
    for subject in subjects:
        counts = counted(subject, image_size or subject.image_size)
        costs[subject.name] = counts.multiply_adds if counts else 0
    smallest = min(subjects, key=lambda each: costs[each.name] or math.inf)
    probe = bench([smallest], runtimes=runtimes, image_sizes=(image_size,), threads=threads, rounds=MIN_ROUNDS)
    rate = min(record["median_ms"] for record in probe.records()) / max(costs[smallest.name], 1)
    kept, reasons = [], []
    for subject in subjects:
        predicted = costs[subject.name] * rate
        if predicted <= SPREAD * max_latency_ms:
            kept.append(subject)
        else:
            reasons.append(
                f"{subject.name}: not measured; at the rate of {smallest.name} its {costs[subject.name] / 1e9:.1f} "
                f"billion multiply-adds take {predicted:.0f} ms"
            )
    return kept or [smallest], reasons


def _ordinary(subject: Subject) -> Subject:
    """What a user would run without this library: timm's own model where it has it, else the same; in PyTorch."""
    has_weights = subject.kind == "ours" and VARIANTS[subject.source].published.weights
    if has_weights and FAMILIES[subject.family].in_timm:
        theirs = find_subject(f"{subject.source}.{VARIANTS[subject.source].published.weights[0][0]}")
        return replace(theirs, runtime=ORDINARY)
    return subject


def _reason(skipped: Skipped) -> str:
    return f"{skipped.candidate.label}: {skipped.reason}"


def _by_accuracy(each: Configuration) -> tuple[float, float]:
    return (-(each.top1 or 0.0), each.record["median_ms"])


def _by_time(each: Configuration) -> tuple[float, float]:
    return (each.record["median_ms"], -(each.top1 or 0.0))
