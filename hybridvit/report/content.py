"""What a report says, as plain data: no torch, no HTML."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

_ONE = r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( %)?"
NUMBER = re.compile(rf"{_ONE}( to {_ONE})?|nan|-?inf|–|")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number worth a large font."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over training, or over a threshold, in one small chart."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]  # name -> points (x, y)
    marks: Sequence[tuple[float, str]] = ()  # (x, what happened there)
    from_zero: bool = False  # the y axis begins at 0
    shows_last: bool = True  # the legend has the last value of each line: of training the newest


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One picture with what the model said of it."""

    image: Path | Image
    file: str  # name to find it by
    said: str
    truth: str = ""  # beside a wrong answer
    note: str = ""
    right: bool


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures under a title."""

    title: str
    answers: Sequence[Answer]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One candidate's latency."""

    label: str
    median_ms: float
    p90_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """A quantity before and after folding."""

    quantity: str
    before: float
    after: float

    @property
    def removed(self) -> float:
        """The fraction that is gone; negative if it grew."""
        return 1 - self.after / self.before if self.before else 0.0


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often each true class (row) was given each answer (column)."""

    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]

    def worst(self, most: int = 8) -> list[tuple[int, str, str]]:
        """The most frequent mistakes: (count, truth, answer)."""
        mistakes = [
            (count, self.class_names[row], self.class_names[column])
            for row, counts in enumerate(self.counts)
            for column, count in enumerate(counts)
            if count and row != column
        ]
        return sorted(mistakes, key=lambda mistake: -mistake[0])[:most]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a head; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    heat: Sequence[int] = ()  # columns of percentages that are coloured by their value

    @property
    def numeric(self) -> set[int]:
        """The columns that hold numbers alone, or ranges of them."""
        columns = list(zip(*self.rows, strict=True))
        return {index for index, cells in enumerate(columns) if all(NUMBER.fullmatch(cell) for cell in cells)}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page. An empty part is left out of it."""

    title: str
    lead: str
    progress: float | None = None  # share done of a run that goes on; its page reloads itself
    figures: Sequence[Figure] = ()
    results: Table | None = None
    curves: Sequence[Curve] = ()
    history: Table | None = None  # the numbers under the curves
    confusion: Confusion | None = None
    tables: Sequence[Table] = ()  # more of what the model is worth
    charts: Sequence[Curve] = ()  # the same, as lines
    charts_title: str = "At every threshold"
    galleries: Sequence[Gallery] = ()
    bars: Sequence[Bar] = ()
    bars_note: str = ""
    changes: Sequence[Change] = ()
    folding_note: str = ""
    commands: Sequence[tuple[str, str]] = ()  # (what for, command line)
    commands_title: str = "Do it again"
    facts: Sequence[tuple[str, str]] = ()  # about the run
    settings: Table | None = None
    events: Table | None = None
    machine: Sequence[tuple[str, str]] = ()
