"""Who watches a training: the loop hands them plain values, and hears nothing from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Row = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best validation so far, by the headline; of equals the first, and of its weights the raw ones."""

    step: int
    epoch: float
    weights: str  # "raw" or "averaged"
    value: float


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Where a session of a run begins."""

    step: int  # optimizer steps done before
    total_steps: int
    steps_per_epoch: int
    steps_per_validation: int
    history: Sequence[Row]  # of the validations before
    best: Best | None = None  # of them
    seconds: float  # of training before


@dataclass(frozen=True, kw_only=True)
class Step:
    """An optimizer step that was taken."""

    step: int  # optimizer steps done
    loss: float
    skipped: int  # steps so far whose gradient left float16's range
    images_per_second: float  # recently
    seconds_per_step: float  # recently
    seconds: float  # of training, in all sessions
    data_wait: float  # share of this session's time that went into waiting for images
    slow_loader: float | None  # that share, once, where it is too large


class Observer:
    """Watches a run on one process. Every method may be left out."""

    def begun(self, beginning: Beginning) -> None:
        """The session begins."""

    def stepped(self, step: Step) -> None:
        """A step was taken."""

    def logged(self, row: Row) -> None:
        """The numbers of the step that was just taken: a row of steps.csv. For about 50 steps in an epoch."""

    def validating(self, done: int, total: int) -> None:
        """`done` of `total` batches of a pass over the validation samples are seen."""

    def validated(self, row: Row) -> None:
        """A validation is done: a row of metrics.csv. Every process is told at the same moment."""

    def said(self, text: str) -> None:
        """A line for a person."""

    def ended(self, error: BaseException | None) -> None:
        """The session ends, for whatever reason."""

    def state(self) -> dict[str, str]:
        """What the observer needs to go on in the same place after a resume."""
        return {}

    def load_state(self, state: Mapping[str, str]) -> None:
        """Called before `begun`, with the states of all observers."""


class Observers(Observer):
    """Several observers, told in their order. Use as a context around the run: `ended` is told at its end."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended(error)

    def begun(self, beginning: Beginning) -> None:
        for observer in self._observers:
            observer.begun(beginning)

    def stepped(self, step: Step) -> None:
        for observer in self._observers:
            observer.stepped(step)

    def logged(self, row: Row) -> None:
        for observer in self._observers:
            observer.logged(row)

    def validating(self, done: int, total: int) -> None:
        for observer in self._observers:
            observer.validating(done, total)

    def validated(self, row: Row) -> None:
        for observer in self._observers:
            observer.validated(row)

    def said(self, text: str) -> None:
        for observer in self._observers:
            observer.said(text)

    def ended(self, error: BaseException | None) -> None:
        for observer in self._observers:
            observer.ended(error)

    def state(self) -> dict[str, str]:
        return {key: value for observer in self._observers for key, value in observer.state().items()}

    def load_state(self, state: Mapping[str, str]) -> None:
        for observer in self._observers:
            observer.load_state(state)
