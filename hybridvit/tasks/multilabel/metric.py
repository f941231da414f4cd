"""How well labels are found, exact on any number of processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.run import of_all_ranks
from hybridvit.report.by_class import (
    RIGHT,
    WRONG,
    ClassScores,
    class_names_of,
    percent,
    scores_by_class,
    table_by_class,
)
from hybridvit.scores import Example, Scores, first_of_groups
from hybridvit.task import Metric, Outputs
from hybridvit.tasks.multilabel.data import as_zeros_and_ones
from hybridvit.tasks.multilabel.result import ANSWER, THRESHOLD, MultilabelResult, results_of, scores_of


@dataclass(frozen=True)
class LabelScores(ClassScores):
    """How well one label is found, at the threshold and at all of them."""

    ap: float | None  # average precision


class MultilabelMetric(Metric):
    """Mean average precision, F1 at the threshold and cross-entropy, from logits.

    The examples are the pictures with the most confident mistakes and the least confident right answers.
    """

    def __init__(self, card: ModelCard, *, num_examples: int) -> None:
        self._card, self._num_examples = card, num_examples
        self._names = class_names_of(card)
        nothing = np.empty((0, len(self._names)))
        self._logits, self._truths = [nothing.astype(np.float32)], [nothing.astype(bool)]  # each: b classes
        self._examples: list[Example] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        if ANSWER not in outputs:
            raise UsageError(
                f"The file gives {' and '.join(outputs)}, but what labels are worth is computed from their logits. "
                "Export the model again with --returns logits."
            )
        logits = torch.as_tensor(outputs[ANSWER]).float().cpu().numpy()
        truths = as_zeros_and_ones(batch.targets.cpu(), len(self._names)).numpy().astype(bool)
        self._logits.append(logits)
        self._truths.append(truths)
        if self._num_examples:
            found = self._shown(logits, truths, batch.samples.tolist())
            self._examples = first_of_groups([*self._examples, *found], (WRONG, RIGHT), self._num_examples)

    def compute(self) -> Scores:
        """Raises DatasetError where no image has a label."""
        shares = of_all_ranks((np.concatenate(self._logits), np.concatenate(self._truths), self._examples))
        logits, truths = (np.concatenate(parts) for parts in list(zip(*shares, strict=True))[:2])
        if not truths.any():
            raise DatasetError(f"None of the {len(truths):,} images has a label, so nothing can be found. Add some.")
        said = scores_of(logits) > THRESHOLD
        counts = [(said & truths), (said & ~truths), (~said & ~truths), (~said & truths), truths]
        by_class = scores_by_class(self._names, np.stack([each.sum(0) for each in counts], 1).tolist())
        precisions = [average_precision(*columns) for columns in zip(logits.T, truths.T, strict=True)]
        classes = [
            LabelScores(**vars(each), ap=None if value is None else percent(value))
            for each, value in zip(by_class, precisions, strict=True)
        ]
        known = [value for value in precisions if value is not None]
        losses = np.logaddexp(0, logits.astype(np.float64)) - logits * truths
        return Scores(
            values={
                "map": percent(sum(known) / len(known)),
                "f1": percent(2 * (said & truths).sum() / (said.sum() + truths.sum())),
                "loss": float(losses.mean()),
            },
            parts=(table_by_class(classes, by="ap"),),
            details={"classes": [vars(each) for each in classes]},
            examples=tuple(
                first_of_groups(chain.from_iterable(share[2] for share in shares), (WRONG, RIGHT), self._num_examples)
            ),
        )

    def _shown(self, logits: np.ndarray, truths: np.ndarray, samples: list[int]) -> Iterable[Example]:
        for result, truth, sample in zip(results_of({ANSWER: logits}, self._card), truths, samples, strict=True):
            yield _example(result, truth, sample, self._names)


def average_precision(scores: np.ndarray, truths: np.ndarray) -> float | None:
    """The mean of the precisions at which each more of the images (n) that have the label is found; None without any.

    Images of one score are found together, so that their order does not matter.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    right = truths[order].cumsum()[ends]
    if not right[-1]:
        return None
    return float((np.diff(right, prepend=0) * right / (ends + 1)).sum() / right[-1])


def _example(result: MultilabelResult, truth: np.ndarray, sample: int, names: Sequence[str]) -> Example:
    """Judged by the label that is furthest on the wrong side of the threshold, or nearest to it on the right one."""
    distance = np.where(truth, THRESHOLD - result.scores, result.scores - THRESHOLD)
    right = bool(((result.scores > THRESHOLD) == truth).all())
    said = ", ".join(name for name, *_ in result.highest(result.num_said)) or "nothing"
    is_true = ", ".join(names[index] for index in np.flatnonzero(truth).tolist()) or "nothing"
    worst = int(distance.argmax())
    return Example(
        group=RIGHT if right else WRONG,
        order=float(distance[worst]),
        sample=sample,
        result=result,
        said=said if right else f"said {said}",
        truth="" if right else f"is {is_true}",
        note=f"{names[worst]} {100 * result.scores[worst]:.1f} %",
        right=right,
    )
