"""The report of a training run, while it goes on and when it has ended, arranged for reading."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridvit.card import Preprocessing
from hybridvit.data.decode import decode_image
from hybridvit.data.samples import Samples
from hybridvit.evaluate.agreement import Agreement
from hybridvit.machine.facts import machine_card
from hybridvit.quantity import Quantity
from hybridvit.recipe.file import OPTIONS, flat
from hybridvit.recipe.recipe import Recipe
from hybridvit.report.content import Answer, Confusion, Curve, Figure, Gallery, Report, Table
from hybridvit.report.pictures import find_picture
from hybridvit.scores import Example
from hybridvit.training.best import better_of, row_of
from hybridvit.training.observe import Best, Row
from hybridvit.training.record.curves import curves_of, told
from hybridvit.training.record.events import Event

MOST_EVENTS = 40


@dataclass(kw_only=True)
class RunRecord:
    """All that the report of a run is made of, kept up to date while it goes on."""

    folder: Path
    recipe: Recipe
    quantities: Sequence[Quantity]  # the first is the headline
    samples: Samples  # to validate on
    preprocessing: Preprocessing
    facts: Sequence[tuple[str, str]]
    events: Sequence[Event]
    total_steps: int
    steps_per_epoch: int
    history: list[Row] = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    data_wait: float = 0.0  # share of the steps' time that went into waiting for images, in this session
    skipped: int = 0  # steps whose gradient left float16's range
    wandb: str = ""  # address of the run's page at Weights & Biases
    ended: str = ""  # why it ended before its last step; empty while it goes on
    best: Best | None = None  # of the validations; the model file holds its weights
    finished: bool = False  # the model file is written
    agreement: Agreement | None = None  # of the model with its folded form

    @property
    def headline(self) -> Quantity:
        return self.quantities[0]


def run_report(record: RunRecord) -> Report:
    """Arrange what is known by now."""
    recipe = record.recipe
    scores = record.agreement.second if record.agreement is not None else None
    parts = scores.parts if scores is not None else ()
    return Report(
        title=f"{recipe.model} on {_subject(recipe)}",
        lead=_lead(record),
        progress=None if record.finished or record.ended else record.step / record.total_steps,
        figures=_figures(record),
        results=_results(record),
        curves=_curves(record),
        history=_history(record),
        confusion=next((part for part in parts if isinstance(part, Confusion)), None),
        tables=[part for part in parts if isinstance(part, Table)],
        charts=[part for part in parts if isinstance(part, Curve)],
        galleries=_galleries(record, scores.examples) if scores is not None else (),
        commands=_commands(record),
        commands_title="Next",
        facts=_facts(record),
        settings=settings_of(recipe),
        events=_events(record.events),
        machine=machine_card().lines(),
    )


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    space = "\N{NO-BREAK SPACE}"
    if hours:
        return f"{hours}{space}h {minutes}{space}min"
    return f"{minutes}{space}min {rest}{space}s" if minutes else f"{rest}{space}s"


def _subject(recipe: Recipe) -> str:
    data = recipe.data
    if data.source != "folder":
        return data.source.replace("_", " ")
    return Path(data.root).expanduser().resolve().name or data.root


def _lead(record: RunRecord) -> str:
    place = f"step {record.step:,} of {record.total_steps:,}"
    if record.finished:
        early = "" if record.step == record.total_steps else f", of {record.total_steps:,}: it ended early"
        return f"Finished: {record.step:,} steps in {clock(record.seconds)}{early}."
    if record.ended:
        return f"Ended at {place}: {record.ended}"
    epochs = record.total_steps // record.steps_per_epoch
    at = f"epoch {record.step / record.steps_per_epoch:.4g} of {epochs}, {place}"
    updated = max((event.time for event in record.events), default="")
    return f"Running: {at}, after {clock(record.seconds)}. This page is written at every validation." + (
        f" Last event: {updated.replace('T', ' ').partition('+')[0]} UTC." if updated else ""
    )


def _figures(record: RunRecord) -> list[Figure]:
    if not record.history or record.best is None:
        return []
    headline, best, last = record.headline, record.best, record.history[-1]
    same = record.agreement
    note = f"{best.weights} weights, epoch {best.epoch:.4g}"
    if same is not None and headline.unit == "%":
        note = f"{round(best.value * same.num_samples / 100):,} of {same.num_samples:,} right, {best.weights} weights"
    figures = [Figure(value=headline.text(best.value), label=f"Validation {headline.title}", note=note)]
    if same is not None:
        note = f"same answer on {_same(same)} images"
        figures.append(Figure(value=headline.text(same.second.values[headline.name]), label="Folded", note=note))
    at_last = better_of(None, last, headline)
    return [
        *figures,
        Figure(
            value=f"{best.epoch:.4g}",
            label="Best epoch",
            note=f"after epoch {last['epoch']:.4g}: {headline.text(at_last.value)}, {at_last.weights} weights",
        ),
        Figure(
            value=f"{last['images_per_second']:,.0f}",
            label="Images per second",
            note=f"{record.data_wait:.0%} of the time waiting for images".replace("%", " %"),
        ),
        Figure(value=clock(record.seconds), label="Time", note=f"{record.step:,} steps"),
    ]


def _results(record: RunRecord) -> Table | None:
    """Raw, averaged and folded, once the run is finished."""
    if not record.finished or record.best is None:
        return None
    best = row_of(record.best, record.history)
    shown = [
        *told(record.history, record.quantities),
        *(quantity for quantity in record.quantities if quantity.name == "loss"),
    ]
    rows = [["raw", *(quantity.number(best[quantity.name]) for quantity in shown)]]
    if f"ema_{record.headline.name}" in best:
        rows.append(["averaged", *(quantity.number(best[f"ema_{quantity.name}"]) for quantity in shown)])
    note = f"model.safetensors holds the {record.best.weights} weights of epoch {record.best.epoch:.4g}"
    note += ", the best on these images; last.safetensors has those of the end."
    same = record.agreement
    if same is not None:
        folded = same.second.values
        rows.append([f"{record.best.weights}, folded", *(quantity.number(folded[quantity.name]) for quantity in shown)])
        note += (
            f" Folded, they give the same answer on {_same(same)} images, and no output differs by more than "
            f"{same.max_difference:.0e} of the largest (both forms in 32 bits)."
        )
        if record.recipe.precision != "32-true":
            note += f" Validation ran in {record.recipe.precision}."
    return Table(title="Result", head=["Weights", *(quantity.title for quantity in shown)], rows=rows, note=note)


def _same(agreement: Agreement) -> str:
    same = "all" if agreement.num_same == agreement.num_samples else f"{agreement.num_same:,} of"
    return f"{same} {agreement.num_samples:,}"


def _curves(record: RunRecord) -> list[Curve]:
    resumed = [event.step / record.steps_per_epoch for event in record.events if event.kind == "resume"]
    return curves_of(record.history, record.quantities, resumed_at=resumed)


def _history(record: RunRecord) -> Table | None:
    if not record.history:
        return None
    columns = list(record.history[0])
    known = {quantity.name: quantity for quantity in record.quantities}
    return Table(
        title="The numbers",
        head=[column.replace("_", " ") for column in columns],
        rows=[[_cell(column, row.get(column, float("nan")), known) for column in columns] for row in record.history],
        note="As in metrics.csv; steps.csv has the training loss, the gradient norm and the speed between them.",
    )


def _cell(column: str, value: float, known: Mapping[str, Quantity]) -> str:
    if column in ("step", "epoch", "skipped_steps"):
        return f"{value:.10g}"
    if column == "images_per_second":
        return f"{value:.1f}"
    if column == "lr":
        return f"{value:.3g}"
    quantity = known.get(column.removeprefix("ema_"))
    return f"{value:.4f}" if quantity is None else quantity.number(value)


def _galleries(record: RunRecord, examples: Sequence[Example]) -> list[Gallery]:
    answers: dict[str, list[Answer]] = {}
    for example in examples:
        picture = find_picture(record.samples, example.sample, record.preprocessing)
        if picture is None:
            continue
        if example.result.lies_in_picture:
            picture = example.result.draw(decode_image(picture) if isinstance(picture, Path) else picture)
        answers.setdefault(example.group, []).append(
            Answer(
                image=picture,
                file=Path(record.samples.paths[example.sample]).name,
                said=example.said,
                truth=example.truth,
                note=example.note,
                right=example.right,
            )
        )
    return [Gallery(title=title, answers=shown) for title, shown in answers.items()]


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    folder, data = record.folder, record.recipe.data
    model = shlex.quote(str(folder / "model.safetensors"))
    board = ("Curves beside those of other runs", f"tensorboard --logdir {shlex.quote(str(folder.parent))}")
    if not record.finished:
        config = shlex.quote(str(folder / "recipe.yaml"))
        return [("Go on, once it has stopped", f"hybridvit train --config {config} --resume"), board]
    images = "IMAGES"
    if data.source in ("folder", "digits") and data.root and not (data.val_share or data.fold):
        images = shlex.quote(str(Path(data.root) / data.val))
    return [
        ("What is on an image", f"hybridvit predict {model} {images}"),
        ("Accuracy, on these or other images", f"hybridvit evaluate {model} {images}"),
        ("The folded weights", f"hybridvit fold {model}"),
        ("For other runtimes", f"hybridvit export {model}"),
        board,
    ]


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    recipe = record.recipe
    started = next((event.time for event in record.events), "")
    sessions = 1 + sum(event.kind == "resume" for event in record.events)
    return [
        *record.facts,
        *([("Skipped steps", f"{record.skipped:,}, whose gradient left float16's range")] if record.skipped else []),
        *([("Weights & Biases", record.wandb)] if record.wandb else []),
        (
            "Schedule",
            f"{record.total_steps // record.steps_per_epoch:,} epochs of {record.steps_per_epoch:,} steps of "
            f"{recipe.data.total_batch:,} images",
        ),
        ("Time", clock(record.seconds) + (f" in {sessions} sessions" if sessions > 1 else "")),
        *([("Started", started.replace("T", " ").partition("+")[0] + " UTC")] if started else []),
        ("Folder", str(record.folder)),
    ]


def settings_of(recipe: Recipe) -> Table:
    """The keys that differ from the defaults."""
    default = flat(type(recipe)(model=recipe.model, dry_run=True))  # a dry run needs no images to be named
    rows = [
        [key, _text(value), _text(default.get(key, ""))]
        for key, value in flat(recipe).items()
        if key not in ("model", "output", "dry_run") and value != default.get(key, {} if key in OPTIONS else "")
    ]
    return Table(
        title="Recipe",
        head=["Key", "Value", "Default"],
        rows=rows,
        note="The keys that differ from the defaults; recipe.yaml has all.",
    )


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _events(events: Sequence[Event]) -> Table | None:
    """The last events, equal texts once."""
    if not events:
        return None
    times = Counter(event.text for event in events)
    last = {event.text: event for event in events}
    kept = sorted(last.values(), key=lambda event: event.time)[-MOST_EVENTS:]
    left_out = len(last) - len(kept)
    return Table(
        title="Events",
        head=["UTC", "Step", "What"],
        rows=[
            [
                event.time.replace("T", " ").partition("+")[0],
                f"{event.step:,}",
                event.text + (f" ({times[event.text]} times)" if times[event.text] > 1 else ""),
            ]
            for event in kept
        ],
        note=f"{left_out:,} earlier ones are in events.jsonl." if left_out else "",
    )
