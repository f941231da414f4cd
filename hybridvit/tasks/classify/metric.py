"""How often a classifier is right, exact on any number of processes."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics import Metric as TorchMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassStatScores

from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.run import of_all_ranks
from hybridvit.report.content import Confusion, Table
from hybridvit.task import Batch, Example, Metric, Outputs, Scores
from hybridvit.tasks.classify.result import results_of

LARGEST_CONFUSION = 1000  # classes; the matrix grows with their square
MOST_ROWS = 200  # classes in the table of a report
WRONG, RIGHT = "Wrong, the most confident first", "Right, the least confident first"


class ClassifyMetric(Metric):
    """Top-1 and top-5 accuracy, cross-entropy and the confusions, from logits.

    The examples are the most confident mistakes and the least confident right answers. Raises DatasetError for one
    class, of which every answer would be right.
    """

    def __init__(self, card: ModelCard, *, num_examples: int) -> None:
        self._card, self._num_examples = card, num_examples
        self._names = class_names_of(card)
        num_classes = len(self._names)
        if num_classes < 2:
            raise DatasetError(f"There is one class, {self._names[0]!r}: every answer would be right. Add another.")
        metrics: dict[str, TorchMetric | MetricCollection] = {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
            "loss": MeanMetric(),
            "by_class": MulticlassStatScores(num_classes, average=None),
        }
        if num_classes <= LARGEST_CONFUSION:
            metrics["confusion"] = MulticlassConfusionMatrix(num_classes)
        self._collection = MetricCollection(metrics, compute_groups=False)
        self._examples: list[Example] = []
        self._right: list[np.ndarray] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        if "logits" not in outputs:
            raise UsageError(
                f"The file gives {' and '.join(outputs)}, but accuracy and loss are computed from logits. Export the "
                "model again with --returns logits, without --top_k."
            )
        logits = torch.as_tensor(outputs["logits"])
        labels = batch.targets.to(logits.device)
        self._collection.to(logits.device)
        for name, metric in self._collection.items():
            if name == "loss":
                metric.update(nn.functional.cross_entropy(logits, labels, reduction="none"))
            else:
                metric.update(logits, labels)
        self._right.append((logits.argmax(1) == labels).cpu().numpy())
        if self._num_examples:
            self._examples = self._best([*self._examples, *self._shown(logits, labels, batch.samples)])

    def compute(self) -> Scores:
        values = self._collection.compute()
        classes = scores_by_class(self._names, values["by_class"])
        parts: tuple[Table | Confusion, ...] = (_table_of(classes),)
        if "confusion" in values:
            parts = (Confusion(class_names=self._names, counts=values["confusion"].tolist()), *parts)
        return Scores(
            values={
                "top1": _percent(values["top1"]),
                "top5": _percent(values["top5"]),
                "loss": values["loss"].item(),
            },
            parts=parts,
            details={"classes": [vars(each) for each in classes]},
            per_image=np.concatenate(self._right) if self._right else None,
            examples=tuple(self._best(chain.from_iterable(of_all_ranks(self._examples)))),
        )

    def _shown(self, logits: Tensor, labels: Tensor, samples: Tensor) -> Iterable[Example]:
        results = results_of({"logits": logits.cpu().numpy()}, self._card)
        for result, label, sample in zip(results, labels.tolist(), samples.tolist(), strict=True):
            right = result.indices[0] == label
            confidence = result.probabilities[0]
            yield Example(
                group=RIGHT if right else WRONG,
                order=-confidence if right else confidence,
                sample=sample,
                result=result,
                said=self._names[label] if right else f"said {self._names[result.indices[0]]}",
                truth="" if right else f"is {self._names[label]}",
                note=f"{100 * confidence:.1f} % sure",
                right=right,
            )

    def _best(self, examples: Iterable[Example]) -> list[Example]:
        groups: dict[str, list[Example]] = {WRONG: [], RIGHT: []}
        for example in examples:
            groups[example.group].append(example)
        return [
            example
            for group in groups.values()
            for example in heapq.nlargest(self._num_examples, group, key=lambda each: each.order)
        ]


@dataclass(frozen=True)
class ClassScores:
    """How well one class is found, in %; None where it cannot be said, as of a class that no image has."""

    name: str
    precision: float | None  # of the images given this answer, those that are right
    recall: float | None  # of the images of this class, those found
    f1: float | None  # their harmonic mean
    num_images: int


def scores_by_class(names: Sequence[str], counts: Tensor) -> list[ClassScores]:
    """Of every class, from the counts of torchmetrics: right, wrongly given, rightly not given, missed, images."""

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
        for name, (right, wrong, _, missed, images) in zip(names, counts.tolist(), strict=True)
    ]


def _table_of(classes: Sequence[ClassScores]) -> Table:
    """The lowest F1 first; classes without an image and without an answer last."""

    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f} %"

    ranked = sorted(classes, key=lambda each: (each.f1 is None, each.f1, -each.num_images))
    more = len(ranked) - MOST_ROWS
    return Table(
        title="Classes, the lowest F1 first",
        head=["Class", "Precision", "Recall", "F1", "Images"],
        rows=[
            [each.name, text(each.precision), text(each.recall), text(each.f1), f"{each.num_images:,}"]
            for each in ranked[:MOST_ROWS]
        ],
        note=f"And {more:,} classes with a higher F1, or without images; `hybridvit evaluate --json` has all."
        if more > 0
        else "",
    )


def class_names_of(card: ModelCard) -> tuple[str, ...]:
    """The card's classes, or their numbers if it names none."""
    return card.class_names or tuple(str(index) for index in range(card.options.get("num_classes", 1000)))


def _percent(share: Tensor) -> float:
    return round(100 * share.item(), 4)  # single precision has no more digits to give
