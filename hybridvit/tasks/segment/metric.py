"""How well pixels are classified, over a whole set, exact on any number of processes."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.run import of_all_ranks
from hybridvit.report.content import Confusion, Table
from hybridvit.scores import Example, Scores, first_of_groups
from hybridvit.task import Metric, Outputs
from hybridvit.tasks.segment.masks import IGNORE
from hybridvit.tasks.segment.result import ANSWER, LABELS, SegmentResult, names_of, palette_of, placed

LARGEST_CONFUSION = 50  # classes; the matrix grows with their square
WORST, BEST = "Lowest IoU first", "Highest IoU first"
_MOST_VALUES = 1 << 26  # of logits in the size of a mask, at once


class SegmentMetric(Metric):
    """IoU and accuracy of the classes, from the pixels of all pictures together.

    Logits are resized to the size of the mask, bilinear, before the largest is taken. The examples are the pictures
    with the lowest and the highest IoU of their own.
    """

    def __init__(self, card: ModelCard, *, num_examples: int) -> None:
        self._names, self._palette, self._num_examples = names_of(card), palette_of(card), num_examples
        self._counts = np.zeros((len(self._names), len(self._names)), np.int64)  # truth, answer
        self._examples: list[Example] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        if ANSWER not in outputs and LABELS not in outputs:
            raise UsageError(
                f"The file gives {' and '.join(outputs)}, but what classes of pixels are worth is computed from their "
                "logits. Export the model again with --returns segmentation."
            )
        frames = batch.frames or (None,) * len(batch.targets)
        given = outputs[LABELS][:, None] if LABELS in outputs else outputs[ANSWER]
        for row, truth, frame, sample in zip(given, batch.targets, frames, batch.samples.tolist(), strict=True):
            maps, size = placed(torch.as_tensor(row), frame)
            truth = truth[: size[0], : size[1]]
            said = _in_size(maps, size) if LABELS in outputs else largest(maps, size)
            counts = confusion(said, truth.to(said.device), len(self._names)).cpu().numpy()
            self._counts += counts
            if self._num_examples:
                found = self._examined(said, counts, sample)
                self._examples = first_of_groups([*self._examples, *found], (WORST, BEST), self._num_examples)

    def compute(self) -> Scores:
        """Raises DatasetError where no pixel has a class."""
        shares = of_all_ranks((self._counts, self._examples))
        counts = np.sum([share[0] for share in shares], 0)
        if not counts.sum():
            raise DatasetError("No pixel of the masks has a class, so nothing can be judged. Run hybridvit check-data.")
        ious, accuracies = intersections_over_unions(counts), recalls(counts)
        parts: tuple[Table | Confusion, ...] = (table_by_class(self._names, ious, accuracies, counts),)
        if len(self._names) <= LARGEST_CONFUSION:
            parts = (*parts, Confusion(class_names=self._names, counts=counts.tolist()))
        classes = [
            {"name": name, "iou": _known(iou), "accuracy": _known(accuracy), "pixels": int(pixels)}
            for name, iou, accuracy, pixels in zip(self._names, ious, accuracies, counts.sum(1), strict=True)
        ]
        return Scores(
            values={
                "miou": 100 * float(np.nanmean(ious)),
                "macc": 100 * float(np.nanmean(accuracies)),
                "aacc": 100 * float(counts.trace() / counts.sum()),
            },
            parts=parts,
            details={"classes": classes},
            examples=tuple(
                first_of_groups(chain.from_iterable(share[1] for share in shares), (WORST, BEST), self._num_examples)
            ),
        )

    def _examined(self, said: Tensor, counts: np.ndarray, sample: int) -> Iterable[Example]:
        """The picture as an example of both groups; none where no pixel has a class."""
        if not counts.sum():
            return
        ious = intersections_over_unions(counts)
        mean, worst = float(np.nanmean(ious)), int(np.nanargmin(ious))
        result = SegmentResult(names=self._names, palette=self._palette, labels=said.cpu().numpy().astype(np.uint8))
        for group, order in ((WORST, -mean), (BEST, mean)):
            yield Example(
                group=group,
                order=order,
                sample=sample,
                result=result,
                said=f"IoU {100 * mean:.1f} %",
                note=f"lowest: {self._names[worst]} {100 * ious[worst]:.1f} %",
                right=group == BEST,
            )


def largest(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class (h w, int64) with the largest logit (classes h w) of each pixel of a mask of that size.

    A few classes at a time, so that memory does not grow with their number.
    """
    at_once = max(1, _MOST_VALUES // (size[0] * size[1]))
    values, labels = torch.empty(0), torch.empty(0, dtype=torch.long)
    for first in range(0, len(logits), at_once):
        part = logits[None, first : first + at_once].float()
        if part.shape[2:] != size:
            part = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
        found, places = part[0].max(0)
        if not first:
            values, labels = found, places
            continue
        labels = torch.where(found > values, places + first, labels)
        values = torch.maximum(values, found)
    return labels


def _in_size(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (1 h w) as those of the pixels of a mask of that size."""
    return F.interpolate(labels[None].float(), size=size, mode="nearest-exact")[0, 0].long()


def confusion(said: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """How many pixels of each class (row) were said to be of which (column), int64; ignored ones left out."""
    known = truth != IGNORE
    pairs = truth[known].long() * num_classes + said[known]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def intersections_over_unions(counts: np.ndarray) -> np.ndarray:
    """Of each class; NaN where neither the masks nor the answers have it."""
    right = counts.diagonal()
    return _share(right, counts.sum(0) + counts.sum(1) - right)


def recalls(counts: np.ndarray) -> np.ndarray:
    """Of the pixels of each class, the share that was found; NaN where the masks have none."""
    return _share(counts.diagonal(), counts.sum(1))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _known(share: float) -> float | None:
    return None if np.isnan(share) else round(100 * float(share), 4)


def table_by_class(names: Sequence[str], ious: np.ndarray, accuracies: np.ndarray, counts: np.ndarray) -> Table:
    """IoU, accuracy and share of the pixels of each class, the lowest IoU first; absent ones last."""

    def text(share: float) -> str:
        return "–" if np.isnan(share) else f"{100 * share:.2f} %"

    pixels = counts.sum(1) / counts.sum()
    order = np.argsort(ious, kind="stable")  # NaN last
    return Table(
        title="Classes, the lowest IoU first",
        head=["Class", "IoU", "Accuracy", "Share of the pixels"],
        rows=[[names[each], text(ious[each]), text(accuracies[each]), text(pixels[each])] for each in order.tolist()],
        note="–: no pixel of the masks or of the answers is of that class." if np.isnan(ious).any() else "",
    )
