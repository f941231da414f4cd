"""The report of a training run, while it goes on and when it has ended, arranged for reading."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from hybridvit.machine.facts import machine_card
from hybridvit.recipe.file import flat
from hybridvit.recipe.recipe import Recipe
from hybridvit.report.content import Answer, Confusion, Curve, Figure, Report, Table
from hybridvit.training.classify.evaluate import Prediction
from hybridvit.training.classify.final_check import FinalCheck
from hybridvit.training.record.events import Event

Row = Mapping[str, float]

# what a row says besides the metrics
PLACE = ("step", "epoch", "lr", "train_loss", "images_per_second", "skipped_steps")
NAMES = {"top1": "top-1", "top5": "top-5", "loss": "loss"}
MOST_EVENTS = 40
MOST_MARKS = 12  # of resumes in the curves


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All that the report of a run is made of."""

    folder: Path
    recipe: Recipe
    headline: str
    facts: Sequence[tuple[str, str]]  # the task's
    history: Sequence[Row]
    events: Sequence[Event]
    step: int
    total_steps: int
    steps_per_epoch: int
    seconds: float  # of training, over all sessions
    data_wait: float  # share of the steps' time that went into waiting for images, in this session
    ended: str = ""  # why it ended before its last step; empty while it goes on
    weights: str = ""  # which ones the model file holds, once it is written
    check: FinalCheck | None = None
    picture: Callable[[str], Path | Image | None] = lambda path: None

    @property
    def finished(self) -> bool:
        """The model file is written."""
        return bool(self.weights)


def run_report(record: RunRecord) -> Report:
    """Arrange what is known by now."""
    check = record.check
    evaluation = check.evaluation if check is not None else None
    recipe = record.recipe
    return Report(
        title=f"{recipe.model} on {_subject(recipe)}",
        lead=_lead(record),
        progress=None if record.finished or record.ended else record.step / record.total_steps,
        figures=_figures(record),
        results=_results(record),
        curves=_curves(record),
        history=_history(record.history),
        confusion=None
        if evaluation is None or evaluation.confusion is None
        else Confusion(class_names=evaluation.class_names, counts=evaluation.confusion.tolist()),
        wrong=_answers(check.wrong, check, record) if check is not None else (),
        right=_answers(check.right, check, record) if check is not None else (),
        commands=_commands(record),
        commands_title="Next",
        facts=_facts(record),
        settings=_settings(recipe),
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
        return f"Finished: {record.total_steps:,} steps in {clock(record.seconds)}."
    if record.ended:
        return f"Ended at {place}: {record.ended}"
    epochs = record.total_steps // record.steps_per_epoch
    at = f"epoch {record.step / record.steps_per_epoch:.4g} of {epochs}, {place}"
    updated = max((event.time for event in record.events), default="")
    return f"Running: {at}, after {clock(record.seconds)}. This page is written at every validation." + (
        f" Last event: {updated.replace('T', ' ').partition('+')[0]} UTC." if updated else ""
    )


def _best(record: RunRecord) -> tuple[float, Row, str]:
    """Value, row and weights of the best validation; the first of equals."""
    values = [
        (row[key], row, weights)
        for row in record.history
        for key, weights in ((record.headline, "raw"), (f"ema_{record.headline}", "averaged"))
        if key in row
    ]
    return max(values, key=lambda value: value[0])


def _figures(record: RunRecord) -> list[Figure]:
    if not record.history:
        return []
    last, key = record.history[-1], record.headline
    averaged = last.get(f"ema_{key}", float("-inf"))
    weights = record.weights or ("averaged" if averaged > last[key] else "raw")
    value = averaged if weights == "averaged" else last[key]
    name = NAMES.get(key, key)
    check = record.check
    note = f"{weights} weights, epoch {last['epoch']:.4g}"
    if check is not None:
        note = f"{round(value * check.num_images / 100):,} of {check.num_images:,} right, {weights} weights"
    figures = [Figure(value=f"{value:.2f} %", label=f"Validation {name}", note=note)]
    if check is not None:
        note = f"same answer on {_same(check)} images"
        figures.append(Figure(value=f"{check.after:.2f} %", label="Folded", note=note))
    best, row, best_weights = _best(record)
    return [
        *figures,
        Figure(value=f"{row['epoch']:.4g}", label="Best epoch", note=f"{best:.2f} %, {best_weights} weights"),
        Figure(
            value=f"{last['images_per_second']:,.0f}",
            label="Images per second",
            note=f"{record.data_wait:.0%} of the time waiting for images".replace("%", " %"),
        ),
        Figure(value=clock(record.seconds), label="Time", note=f"{record.step:,} steps"),
    ]


def _results(record: RunRecord) -> Table | None:
    """Raw, averaged and folded, once the run is finished."""
    if not record.finished or not record.history:
        return None
    last = record.history[-1]
    metrics = [*_told(record.history), *(["loss"] if "loss" in last else [])]
    rows = [["raw", *(_metric(name, last[name]) for name in metrics)]]
    if f"ema_{record.headline}" in last:
        rows.append(["averaged", *(_metric(name, last[f"ema_{name}"]) for name in metrics)])
    note = f"model.safetensors holds the {record.weights} weights"
    note += ", the better on these images." if len(rows) > 1 else "."
    check = record.check
    if check is not None:
        rows.append([f"{record.weights}, folded", *(_metric(name, check.metrics[name]) for name in metrics)])
        note += (
            f" Folded, they give the same answer on {_same(check)} images, and no logit differs by more than "
            f"{check.max_difference:.0e} of the largest (both forms in 32 bits)."
        )
        if record.recipe.precision != "32-true":
            note += f" Validation ran in {record.recipe.precision}."
    return Table(title="Result", head=["Weights", *(NAMES.get(name, name) for name in metrics)], rows=rows, note=note)


def _same(check: FinalCheck) -> str:
    same = "all" if check.same_answers == check.num_images else f"{check.same_answers:,} of"
    return f"{same} {check.num_images:,}"


def _curves(record: RunRecord) -> list[Curve]:
    history = record.history
    if not history:
        return []
    resumed = [event.step / record.steps_per_epoch for event in record.events if event.kind == "resume"]
    marks = [(epoch, "resumed") for epoch in sorted(set(resumed))[-MOST_MARKS:]]

    def curve(title: str, unit: str, lines: Mapping[str, str], *, from_zero: bool = False) -> Curve:
        points = {name: [(row["epoch"], row[key]) for row in history if key in row] for name, key in lines.items()}
        return Curve(
            title=title,
            x_label="epoch",
            y_label=unit,
            lines={name: line for name, line in points.items() if line},
            marks=marks,
            from_zero=from_zero,
        )

    return [
        curve("Loss", "", {"training": "train_loss", "validation": "loss", "validation, averaged": "ema_loss"}),
        *(
            curve(f"Validation {NAMES.get(name, name)}", "%", {"raw weights": name, "averaged weights": f"ema_{name}"})
            for name in _told(history)
        ),
        curve("Learning rate", "", {"learning rate": "lr"}, from_zero=True),
        curve("Speed", "", {"images per second": "images_per_second"}, from_zero=True),
    ]


def _told(history: Sequence[Row]) -> list[str]:
    """The metrics but the loss; without those that are always 100 %: the top-5 of four classes says nothing."""
    metrics = [name for name in history[0] if name not in PLACE and not name.startswith("ema_") and name != "loss"]
    return [name for name in metrics if any(row[name] < 100 for row in history)] or metrics[:1]


def _history(history: Sequence[Row]) -> Table | None:
    if not history:
        return None
    columns = list(history[0])
    return Table(
        title="The numbers",
        head=[column.replace("_", " ") for column in columns],
        rows=[[_cell(column, row.get(column, float("nan"))) for column in columns] for row in history],
        note="As in metrics.csv; steps.csv has the training loss, the gradient norm and the speed between them.",
    )


def _cell(column: str, value: float) -> str:
    if column in ("step", "epoch"):
        return f"{value:.10g}"
    if column == "images_per_second":
        return f"{value:.1f}"
    return f"{value:.3g}" if column == "lr" else _metric(column.removeprefix("ema_"), value)


def _metric(name: str, value: float) -> str:
    return f"{value:.4f}" if "loss" in name else f"{value:.2f}"


def _answers(predictions: Sequence[Prediction], check: FinalCheck, record: RunRecord) -> list[Answer]:
    names = check.evaluation.class_names
    pictures = [(prediction, record.picture(prediction.path)) for prediction in predictions]
    return [
        Answer(
            image=picture,
            file=Path(prediction.path).name,
            truth=names[prediction.label],
            said=names[prediction.predicted],
            probability=prediction.confidence,
        )
        for prediction, picture in pictures
        if picture is not None
    ]


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    folder, data = record.folder, record.recipe.data
    model = shlex.quote(str(folder / "model.safetensors"))
    board = ("Curves beside those of other runs", f"tensorboard --logdir {shlex.quote(str(folder.parent))}")
    if not record.finished:
        config = shlex.quote(str(folder / "recipe.yaml"))
        return [("Go on, once it has stopped", f"hybridvit train --config {config} --resume"), board]
    images = "IMAGES"
    if data.source in ("folder", "digits") and data.root and not data.val_share:
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
        (
            "Schedule",
            f"{record.total_steps // record.steps_per_epoch:,} epochs of {record.steps_per_epoch:,} steps of "
            f"{recipe.data.total_batch:,} images",
        ),
        ("Time", clock(record.seconds) + (f" in {sessions} sessions" if sessions > 1 else "")),
        *([("Started", started.replace("T", " ").partition("+")[0] + " UTC")] if started else []),
        ("Folder", str(record.folder)),
    ]


def _settings(recipe: Recipe) -> Table:
    """The keys that differ from the defaults."""
    default = flat(Recipe(model=recipe.model, dry_run=True))  # a dry run needs no images to be named
    rows = [
        [key, _text(value), _text(default.get(key, ""))]
        for key, value in flat(recipe).items()
        if key not in ("model", "output", "dry_run") and value != default.get(key, {} if key == "model_options" else "")
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
