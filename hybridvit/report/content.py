"""What a report says, as plain data: no torch, no HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number worth a large font."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over training, in one small chart."""

    title: str
    x_label: str
    y_label: str
    lines: dict[str, Sequence[tuple[float, float]]]  # name -> points (x, y)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One image with what the model said."""

    image: Path
    truth: str  # empty if unknown
    said: str
    probability: float

    @property
    def right(self) -> bool:
        """The model named the true class."""
        return self.truth == self.said


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
class Report:
    """Everything on the page. An empty part is left out of it."""

    title: str
    lead: str
    figures: Sequence[Figure] = ()
    curves: Sequence[Curve] = ()
    confusion: Confusion | None = None
    wrong: Sequence[Answer] = ()
    right: Sequence[Answer] = ()
    bars: Sequence[Bar] = ()
    bars_note: str = ""
    changes: Sequence[Change] = ()
    folding_note: str = ""
    machine: Sequence[tuple[str, str]] = ()
    commands: Sequence[tuple[str, str]] = ()  # (what for, command line)
