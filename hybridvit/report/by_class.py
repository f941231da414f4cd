"""How well each class is found, and the examples to show: what metrics of named classes share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hybridvit.card import ModelCard
from hybridvit.models.registry import num_outputs
from hybridvit.report.content import Table

MOST_ROWS = 200  # classes in the table of a report
WRONG, RIGHT = "Wrong, the most confident first", "Right, the least confident first"
_TITLES = {"ap": "AP", "precision": "Precision", "recall": "Recall", "f1": "F1"}


@dataclass(frozen=True)
class ClassScores:
    """How well one class is found, in %; None where it cannot be said, as of a class that no image has."""

    name: str
    precision: float | None  # of the images given this answer, those that are right
    recall: float | None  # of the images of this class, those found
    f1: float | None  # their harmonic mean
    num_images: int


def scores_by_class(names: Sequence[str], counts: Iterable[Sequence[int]]) -> list[ClassScores]:
    """Of every class, from the counts that torchmetrics has: right, wrong, rightly not given, missed, images."""

    def share(part: int, whole: int) -> float | None:
        return round(100 * part / whole, 4) if whole else None

    return [
        ClassScores(
            name=name,
            precision=share(right, right + wrong),
            recall=share(right, images),
            f1=share(2 * right, 2 * right + wrong + missed),
            num_images=images,
        )
        for name, (right, wrong, _, missed, images) in zip(names, counts, strict=True)
    ]


def table_by_class(classes: Sequence[ClassScores], *, by: str) -> Table:
    """The lowest of the score `by` first, such as "f1"; classes of which it cannot be said last."""

    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f} %"

    rows = sorted(map(vars, classes), key=lambda row: (row[by] is None, row[by], -row["num_images"]))
    shown = [name for name in _TITLES if name in rows[0]]
    title, more = _TITLES[by], len(rows) - MOST_ROWS
    note = f"And {more:,} classes with a higher {title}, or without images; `hybridvit evaluate --json` has all."
    return Table(
        title=f"Classes, the lowest {title} first",
        head=["Class", *(_TITLES[name] for name in shown), "Images"],
        rows=[
            [row["name"], *(text(row[name]) for name in shown), f"{row['num_images']:,}"] for row in rows[:MOST_ROWS]
        ],
        note=note if more > 0 else "",
    )


def class_names_of(card: ModelCard) -> tuple[str, ...]:
    """The card's classes, or their numbers if it names none."""
    return card.class_names or tuple(str(index) for index in range(num_outputs(card)))


def percent(share: float) -> float:
    """In %, with the digits that single precision has to give."""
    return round(100 * share, 4)
