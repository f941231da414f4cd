"""The best configuration on this device: the most accurate that is fast enough, or the fastest that loses little."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from hybridvit import peers
from hybridvit.atomic import make_folder
from hybridvit.digest import short_digest
from hybridvit.errors import HybridViTError, UsageError
from hybridvit.export.apart import ExportJob, run_apart
from hybridvit.export.embeddings import check_answers
from hybridvit.export.options import ExportOptions
from hybridvit.export.spec import PRECISIONS, Precision
from hybridvit.export.targets import EXPORTERS
from hybridvit.loading import open_runner
from hybridvit.main_module import refuse_at_import
from hybridvit.measure.bench import bench
from hybridvit.measure.candidate import TARGETS, TORCH, check_names, why_not
from hybridvit.measure.counts import counted
from hybridvit.measure.latency import MIN_ROUNDS
from hybridvit.measure.options import CHOOSE_DEFAULTS, BenchOptions, ChooseOptions
from hybridvit.measure.plan import installed_runtimes, plan_of
from hybridvit.measure.result import BenchResult
from hybridvit.measure.subject import Subject, find_subject
from hybridvit.models.registry import FAMILIES, VARIANTS
from hybridvit.quantity import Quantity
from hybridvit.task import find_task

SPREAD = 3.0
"""A model is not measured if its multiply-adds predict more than so many times the time that is allowed: between
networks of one kind, time per multiply-add differs by less on one device."""
ORDINARY = "torch"
MAX_DROP = 0.5  # that may be lost by default, in the unit of the task's headline
BATCH = 32  # images in memory at a time, for an accuracy


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way to run a model, with the evidence."""

    model: str  # name or checkpoint
    record: Mapping[str, Any]  # of the benchmark
    quantity: Quantity  # that models of its task are judged by
    score: float | None  # in it: measured, or published of fp32
    drop: float | None  # how much worse than the checkpoint in PyTorch in fp32; None: not measured
    speed: float | None  # times as fast as the ordinary way; None: that could not be measured

    def fits(self, max_latency_ms: float | None, max_drop: float) -> bool:
        """Whether it is fast enough (if that is asked), and loses no more than is allowed as far as is known."""
        if self.drop is not None and self.drop > max_drop:
            return False
        return max_latency_ms is None or (self.score is not None and self.record["high_ms"] <= max_latency_ms)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; the score stands under the name of its quantity."""
        rest = {key: value for key, value in asdict(self).items() if key not in ("quantity", "score")}
        return {"model": rest.pop("model"), "record": rest.pop("record"), self.quantity.name: self.score, **rest}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration that was chosen, all that were measured, and what was not."""

    chosen: Configuration | None  # None: nothing fits
    configurations: tuple[Configuration, ...]  # best first
    left_out: tuple[str, ...]  # with the reason
    rule: str
    quantity: Quantity  # of all configurations
    accuracy_from: str
    result: BenchResult


def choose(options: ChooseOptions = CHOOSE_DEFAULTS, *, show: Callable[[str], None] = lambda _: None) -> Choice:
    """Measure models in runtimes and precisions at batch 1, and choose.

    With `max_latency_ms`: the most accurate configuration whose median, at the upper end of its interval, is below it.
    Without: the fastest that loses at most `max_drop` of the headline of its task; with int8, layers are kept in
    floating point until no more is lost. The ordinary way (timm's model or else ours, PyTorch, eager, folded, fp32) is
    measured beside them.

    Accuracies of models by name are the published ones, of fp32; what another precision costs is then not known, and
    is said to be so. Those of checkpoints are measured on `data`.

    `show` is told what is going on. Raises UsageError for options that contradict each other, for checkpoints of
    several tasks, and what `bench` and `export` raise.
    """
    refuse_at_import()
    wanted = check_names("precision", options.precisions or ["fp32"], PRECISIONS)
    precisions = [each for each in PRECISIONS if each in wanted]
    runtimes = installed_runtimes(options.runtime)
    subjects = [find_subject(name) for name in options.models or published()]
    quantity = _quantity(subjects)
    _check(subjects, precisions, options)
    measuring = BenchOptions(
        runtimes=[ORDINARY, *runtimes],
        precisions=["fp32", *precisions],
        image_size=[options.image_size] if options.image_size else None,
        threads=options.threads,
        rounds=options.rounds,
        seconds=options.seconds,
        processes=1,  # of many candidates: more would take their memory and minutes
    )
    plan_of(measuring)  # refuses what cannot be measured, before anything is exported
    if options.data is not None:  # the other runtimes have their files, whose accuracy is known
        in_torch = dict.fromkeys((ORDINARY, *(each for each in runtimes if each in TORCH)))
        subjects = [replace(subject, runtimes=tuple(in_torch)) for subject in subjects]
    with tempfile.TemporaryDirectory(prefix="hybridvit-choose-") as temporary:
        folder = options.files or Path(temporary)
        make_folder(folder)
        found = _Field(subjects=subjects)
        if options.data is not None:
            found = _judged(subjects, [*product(runtimes, precisions)], options.data, options, folder, show)
        elif options.max_latency_ms is not None:
            found = _plausible(subjects, runtimes, options.max_latency_ms, options)
        ordinary = {subject.name: _ordinary(subject) for subject in subjects}
        beside = [each for each in ordinary.values() if each not in found.subjects]
        result = bench([*found.subjects, *beside], replace(measuring, files=folder), show=show)
    not_asked = {each.name for each in beside}
    configurations = [
        _configuration(record, quantity, found.accuracies.get(record["model"]), ordinary, result)
        for record in result.records()
        if record["model"] not in not_asked and record["runtime"] in runtimes and record["precision"] in precisions
    ]
    left_out = [*_impossible(runtimes, precisions, options), *found.left_out]
    return _choice(configurations, quantity, left_out, options, result)


def _quantity(subjects: Sequence[Subject]) -> Quantity:
    """What all of them are judged by. Raises UsageError for models of several tasks."""
    of = {find_task(subject.task).headline: subject for subject in subjects}
    if len(of) > 1:
        (one, first), (other, second), *_ = of.items()
        raise UsageError(
            f"{first.name} is judged by its {one.title}, {second.name} by its {other.title}, so neither is the better "
            "one. Name models of one task."
        )
    return next(iter(of))


def _choice(
    configurations: list[Configuration],
    quantity: Quantity,
    left_out: list[str],
    options: ChooseOptions,
    result: BenchResult,
) -> Choice:
    """The best of what was measured by the rule of `options`, before the others."""
    max_drop = MAX_DROP if options.max_drop is None else options.max_drop
    order, rule = _by_time, f"the fastest that loses at most {max_drop:g} {quantity.unit_of_losses} of {quantity.title}"
    if options.max_latency_ms is not None:
        order = _by_accuracy
        rule = (
            f"the most accurate with a median of at most {options.max_latency_ms:g} ms (upper end of its 95 % interval)"
        )
    fitting = [each for each in configurations if each.fits(options.max_latency_ms, max_drop)]
    skipped = [each for each in result.skipped if not each.candidate.why_not()]
    return Choice(
        chosen=min(fitting, key=order, default=None),
        configurations=tuple(sorted(configurations, key=order)),
        left_out=(*left_out, *(f"{each.candidate.label}: {each.reason}" for each in skipped)),
        rule=rule,
        quantity=quantity,
        accuracy_from="published, of fp32" if options.data is None else f"measured on {options.data}",
        result=result,
    )


def _configuration(
    record: Mapping[str, Any],
    quantity: Quantity,
    known: "Measured | None",
    ordinary: Mapping[str, Subject],
    result: BenchResult,
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
        quantity=quantity,
        score=known.score if known else record["top1"],  # published of models by name, which all classify
        drop=known.drop if known else None,
        speed=slow / record["median_ms"] if slow else None,
    )


def _impossible(runtimes: Sequence[str], precisions: Sequence[Precision], options: ChooseOptions) -> Iterator[str]:
    """The ways that were asked for and that there are not, with the reason."""
    for runtime, precision in product(runtimes, precisions):
        reason = why_not(runtime, precision)
        if not reason and runtime in TORCH and precision != "fp32" and options.data is not None:
            reason = "a checkpoint's accuracy is measured in fp32 in PyTorch"
        if reason:
            yield f"{runtime}, {precision}: {reason}"


def published() -> list[str]:
    """Our variants that weights of a classifier are published of: an image tower has no accuracy to rank by."""
    return [
        name
        for name, variant in VARIANTS.items()
        if variant.published.weights and not variant.published.embedding_width
    ]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one file is worth."""

    checkpoint: str  # that it was made from
    score: float
    drop: float  # how much worse than the checkpoint


@dataclass(frozen=True, kw_only=True)
class _Field:
    """What to time: models and files, the accuracies of files by name, and what stays out with the reason."""

    subjects: list[Subject]
    accuracies: dict[str, Measured] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def _judged(
    checkpoints: Sequence[Subject],
    ways: Sequence[tuple[str, Precision]],
    data: Path,
    options: ChooseOptions,
    folder: Path,
    show: Callable[[str], None],
) -> _Field:
    """Each checkpoint itself, in PyTorch, and one file per way (runtime, precision), with what they get right."""
    found, stems = _Field(subjects=[]), Counter(Path(checkpoint.source).stem for checkpoint in checkpoints)
    for checkpoint in checkpoints:
        quantity, own = find_task(checkpoint.task).headline, score_of(checkpoint.source, data, options.zero_shot)
        found.subjects.append(checkpoint)
        found.accuracies[checkpoint.name] = Measured(checkpoint=checkpoint.name, score=own, drop=0.0)
        for runtime, precision in ways:
            if runtime in TORCH or why_not(runtime, precision):
                continue
            suffix = EXPORTERS[TARGETS[runtime]].suffix
            stem = Path(checkpoint.source).stem
            stem += f"-{short_digest(checkpoint.source)}" if stems[stem] > 1 else ""
            path = folder / f"{stem}-{runtime}-{precision}{suffix}"
            show(f"exporting {path.name}")
            try:
                run_apart(_job(checkpoint, runtime, precision, path, options))
                of_file = score_of(str(path), data)
            except HybridViTError as error:
                found.left_out.append(f"{checkpoint.name}, {runtime}, {precision}: {error}")
                continue
            subject = find_subject(str(path))
            found.subjects.append(subject)
            drop = quantity.lost(own, of_file)
            found.accuracies[subject.name] = Measured(checkpoint=checkpoint.name, score=of_file, drop=drop)
    return found


def _job(checkpoint: Subject, runtime: str, precision: Precision, path: Path, options: ChooseOptions) -> ExportJob:
    job = ExportJob(
        checkpoint=checkpoint.source,
        output=str(path),
        to=TARGETS[runtime],
        options=ExportOptions(precision=precision, batch=1, image_size=options.image_size),
        zero_shot=None if options.zero_shot is None else str(options.zero_shot),
    )
    if precision != "int8":
        return job
    max_drop = MAX_DROP if options.max_drop is None else options.max_drop
    return replace(job, calibration=str(options.calibration), labelled=str(options.data), max_drop=max_drop)


def score_of(path: str, data: Path, zero_shot: Path | None = None) -> float:
    """What any file is worth on a labelled folder, in the headline of its task; of a tower by a file of texts.

    Raises DatasetError for a folder that does not fit the model, UsageError for a tower without texts.
    """
    from hybridvit.data.loader import make_eval_loader
    from hybridvit.evaluate.run import evaluate
    from hybridvit.export.quantise.quality import value_of

    runner = open_runner(path, zero_shot=zero_shot)
    check_answers(runner, path)
    task = find_task(runner.card.task)
    loader = make_eval_loader(task.labelled(str(data), runner.card), collate=task.collate, batch_size=BATCH)
    found = evaluate(lambda batch: runner(batch.inputs), task, loader, runner.card)
    return value_of(found.scores, task.headline)


def _check(subjects: Sequence[Subject], precisions: Sequence[str], options: ChooseOptions) -> None:
    limit, data, max_drop = options.max_latency_ms, options.data, options.max_drop
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"max_latency_ms is {limit:g}, but must be a time above 0. Use --max_latency_ms 8.")
    if max_drop is not None and not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop is {max_drop:g}, but must be a number from 0, such as 0.5.")
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
    if data is None and options.zero_shot is not None:
        raise UsageError(
            f"--zero_shot is {options.zero_shot}, but texts are judged by what a checkpoint makes of labelled images "
            "with them. Give a checkpoint and --data as well."
        )
    if limit is not None and data is None and not any(_is_known(subject, options.image_size) for subject in subjects):
        raise UsageError(
            "--max_latency_ms chooses the most accurate, and no accuracy is published of these models at this "
            "--image_size. Leave it out, or give checkpoints and --data."
        )
    if "int8" in precisions and data is not None and options.calibration is None:
        raise UsageError("int8 needs images to calibrate on. Give --calibration with a folder of class folders.")
    if data is None and options.calibration is not None:
        raise UsageError("There are images to calibrate on, but none to measure the accuracy on. Give --data as well.")
    if "int8" not in precisions and options.calibration is not None:
        raise UsageError(
            f"--calibration is {options.calibration}, but nothing is to be int8. Add int8 to --precisions, or leave it "
            "out."
        )
    if data is None and max_drop is not None:
        raise UsageError(
            f"--max_drop is {max_drop:g}, but a loss is only measured of a checkpoint on labelled images. Give "
            "checkpoints and --data, or leave it out."
        )


def _is_known(subject: Subject, image_size: tuple[int, int] | None) -> bool:
    """Whether an accuracy is published of the weights of that name."""
    height, width = image_size or subject.image_size
    return height == width and peers.published_accuracy(subject.name, height) is not None


def _plausible(
    subjects: Sequence[Subject], runtimes: Sequence[str], max_latency_ms: float, options: ChooseOptions
) -> _Field:
    """Those that could be fast enough at the time per multiply-add of the smallest, and why the others are not."""
    size = options.image_size
    costs: dict[str, int] = {}
    for subject in subjects:
        counts = counted(subject, size or subject.image_size)
        costs[subject.name] = counts.multiply_adds if counts else 0
    smallest = min(subjects, key=lambda each: costs[each.name] or math.inf)
    probing = BenchOptions(
        runtimes=runtimes, image_size=[size] if size else None, threads=options.threads, rounds=MIN_ROUNDS, processes=1
    )
    probe = bench([smallest], probing)
    if not probe.is_complete:
        raise KeyboardInterrupt
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
    return _Field(subjects=kept or [smallest], left_out=reasons)


def _ordinary(subject: Subject) -> Subject:
    """What a user would run without this library: timm's own model where it has it, else the same; in PyTorch."""
    has_weights = subject.kind == "ours" and VARIANTS[subject.source].published.weights
    if has_weights and FAMILIES[subject.family].in_timm:
        theirs = find_subject(f"{subject.source}.{VARIANTS[subject.source].published.weights[0][0]}")
        return replace(theirs, runtimes=(ORDINARY,), image_size=subject.image_size)
    return subject


def _by_accuracy(each: Configuration) -> tuple[float, float]:
    return (_cost(each), each.record["median_ms"])


def _by_time(each: Configuration) -> tuple[float, float]:
    return (each.record["median_ms"], _cost(each))


def _cost(each: Configuration) -> float:
    """The score as a number that is low for what is good; infinite where it is not known."""
    return math.inf if each.score is None else each.quantity.lost(0.0, each.score)
