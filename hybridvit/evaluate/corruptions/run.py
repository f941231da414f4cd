"""What an answerer is worth on corrupted pictures, for any task: its headline by corruption and severity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hybridvit.card import ModelCard
from hybridvit.data.decode import ImageChange
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.samples import Samples
from hybridvit.evaluate.corruptions.corrupt import Corruption, opened_package
from hybridvit.evaluate.corruptions.names import COMMON, checked_severities, chosen
from hybridvit.evaluate.run import Answerer, Evaluation, evaluate
from hybridvit.quantity import Quantity
from hybridvit.task import Task

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CorruptionChoice:
    """Which corruptions of which severities. Raises UsageError for unknown ones."""

    names: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int = 0

    @classmethod
    def of(cls, words: Sequence[str], severities: Sequence[int], *, seed: int = 0) -> "CorruptionChoice":
        """From names and groups of them."""
        return cls(names=chosen(words), severities=checked_severities(severities), seed=seed)


@dataclass(frozen=True, kw_only=True)
class CorruptedScores:
    """The headline of a task on the pictures as they are, and by corruption and severity."""

    quantity: Quantity
    clean: float
    values: Mapping[str, Mapping[int, float]]
    num_images: int
    num_skipped: int
    seed: int
    seconds: float

    def mean_of(self, name: str) -> float:
        """Over the severities of a corruption."""
        return sum(self.values[name].values()) / len(self.values[name])

    @property
    def averaged(self) -> tuple[str, ...]:
        """The corruptions that the mean is over: the extra ones only where there are no others."""
        return tuple(name for name in self.values if name in COMMON) or tuple(self.values)

    @property
    def mean(self) -> float:
        """Over severities, then over `averaged`. An accuracy or the like: no mCE, which has a baseline of its own."""
        return sum(map(self.mean_of, self.averaged)) / len(self.averaged)

    @property
    def drop(self) -> float:
        """How much is lost from clean pictures to the mean, in the quantity's unit."""
        return self.quantity.lost(self.clean, self.mean)

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return {
            "quantity": self.quantity.name,
            "unit": self.quantity.unit,
            "clean": round(self.clean, 6),
            "mean_corrupted": round(self.mean, 6),
            "drop": round(self.drop, 6),
            "corruptions": {
                name: {str(severity): round(value, 6) for severity, value in by_severity.items()}
                for name, by_severity in self.values.items()
            },
            "corruption_seed": self.seed,
            "num_images": self.num_images,
            "num_skipped": self.num_skipped,
            "seconds": round(self.seconds, 3),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """A table: a row for each corruption, with its mean and drop, between what clean pictures and all give."""
        number, severities = self.quantity.number, list(next(iter(self.values.values())))
        gap = ("",) * len(severities)
        rows = [("Corruption", *map(str, severities), "mean", "drop"), ("none", *gap, number(self.clean), "")]
        for name, by_severity in self.values.items():
            mean = self.mean_of(name)
            cells = [number(by_severity[severity]) for severity in severities]
            mark = "" if name in self.averaged else " (not in the mean)"
            rows.append((name + mark, *cells, number(mean), number(self.quantity.lost(self.clean, mean))))
        return [*rows, (f"mean of {len(self.averaged)}", *gap, number(self.mean), number(self.drop))]


def evaluate_corrupted(
    answer: Answerer,
    task: Task,
    samples: Samples,
    card: ModelCard,
    choice: CorruptionChoice,
    *,
    root: str,
    batch_size: int = 32,
    workers: int = 0,
    say: Say = lambda _: None,
) -> CorruptedScores:
    """Judge the answers to the same samples as they are, and under each corruption at each severity.

    Every decoded picture is changed as it is before it is resized, cut or normalised; targets stay as they are. `root`
    is the folder that pictures are named from. `say` is told of each result. Raises as
    `hybridvit.evaluate.run.evaluate` and `corrupt`; UsageError before the work where the extra `robustness` is missing.
    """
    opened_package()
    quantity, before = task.headline, samples.change

    def judged(change: ImageChange | None) -> Evaluation:
        samples.change = change
        loader = make_eval_loader(samples, collate=task.collate, batch_size=batch_size, workers=workers)
        try:
            return evaluate(answer, task, loader, card)
        finally:
            loader.close()

    try:
        clean = judged(None)
        seconds, values = clean.seconds, dict[str, dict[int, float]]()
        say(f"as they are: {quantity.text(clean.scores.values[quantity.name])}")
        for name in choice.names:
            for severity in choice.severities:
                found = judged(Corruption(name, severity, root=root, seed=choice.seed))
                values.setdefault(name, {})[severity] = value = found.scores.values[quantity.name]
                seconds += found.seconds
                say(f"{name} {severity}: {quantity.text(value)}")
    finally:
        samples.change = before
    return CorruptedScores(
        quantity=quantity,
        clean=clean.scores.values[quantity.name],
        values=values,
        num_images=clean.num_samples,
        num_skipped=clean.num_skipped,
        seed=choice.seed,
        seconds=seconds,
    )
