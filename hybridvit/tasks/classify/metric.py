"""How often a classifier is right, exact on any number of processes."""

from collections.abc import Iterable
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics import Metric as TorchMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassStatScores

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.run import of_all_ranks
from hybridvit.report.by_class import (
    RIGHT,
    WRONG,
    class_names_of,
    percent,
    scores_by_class,
    table_by_class,
)
from hybridvit.report.content import Confusion, Table
from hybridvit.scores import Example, Scores, first_of_groups
from hybridvit.task import Metric, Outputs
from hybridvit.tasks.classify.result import results_of

LARGEST_CONFUSION = 1000  # classes; the matrix grows with their square


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
            found = self._shown(logits, labels, batch.samples)
            self._examples = first_of_groups([*self._examples, *found], (WRONG, RIGHT), self._num_examples)

    def compute(self) -> Scores:
        values = self._collection.compute()
        classes = scores_by_class(self._names, values["by_class"].tolist())
        parts: tuple[Table | Confusion, ...] = (table_by_class(classes, by="f1"),)
        if "confusion" in values:
            parts = (Confusion(class_names=self._names, counts=values["confusion"].tolist()), *parts)
        return Scores(
            values={
                "top1": percent(values["top1"].item()),
                "top5": percent(values["top5"].item()),
                "loss": values["loss"].item(),
            },
            parts=parts,
            details={"classes": [vars(each) for each in classes]},
            per_image=np.concatenate(self._right) if self._right else None,
            examples=tuple(
                first_of_groups(chain.from_iterable(of_all_ranks(self._examples)), (WRONG, RIGHT), self._num_examples)
            ),
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
