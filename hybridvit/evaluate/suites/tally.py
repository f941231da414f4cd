"""The answers to the images of a part, as few numbers per image as every measure needs: 36 bytes."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hybridvit.evaluate.suites.labels import subset_indices
from hybridvit.evaluate.suites.layout import Part
from hybridvit.evaluate.suites.measures import (
    LOG2_TEMPERATURES,
    best_temperature,
    calibration_error,
    equal_mass_calibration_error,
    rms_calibration_error,
    wilson,
)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Per image, in the order of `samples`, which are its numbers in the part."""

    samples: np.ndarray  # int32
    answer: np.ndarray  # int16, in the classes that are judged
    top1: np.ndarray  # bool: right
    top5: np.ndarray  # bool
    unrestricted: np.ndarray  # bool: the most probable of all classes is right, where a suite has a subset of them
    confidence: np.ndarray  # float64, of the answer
    loss: np.ndarray  # float64: negative log probability of the right answer; NaN where there are several
    brier: np.ndarray  # float64: squared distance from the right answer; NaN too
    losses: np.ndarray  # float64, by temperature: sums over the images

    def arrays(self) -> dict[str, np.ndarray]:
        """As a file keeps them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def scores(self) -> dict[str, Any]:
        """The measures of a single part, shares from 0 to 1; None for those that several right answers leave out."""
        number, right = len(self.top1), int(self.top1.sum())
        several = bool(np.isnan(self.loss).any())
        return {
            "num_images": number,
            "num_right": right,
            "top1": right / number,
            "top1_interval": list(wilson(right, number)),
            "top5": int(self.top5.sum()) / number,
            "top1_unrestricted": int(self.unrestricted.sum()) / number,
            "ece": calibration_error(self.confidence, self.top1),
            "ece_equal_mass": equal_mass_calibration_error(self.confidence, self.top1),
            "rms_calibration": rms_calibration_error(self.confidence, self.top1),
            "nll": None if several else float(self.loss.mean()),
            "brier": None if several else float(self.brier.mean()),
            "temperature": None if several else best_temperature(self.losses),
        }


class Tally:
    """Takes in the answers to a part, batch by batch."""

    def __init__(self, part: Part) -> None:
        self._right = part.right
        self._subset = subset_indices(part.subset) if part.subset else None
        self._batches: list[tuple[np.ndarray, ...]] = []
        self._losses = np.zeros(len(LOG2_TEMPERATURES))

    def add(self, logits: np.ndarray, samples: np.ndarray) -> None:
        """The logits (n, all classes of the model) to the images of these numbers."""
        right = self._right[samples]
        everywhere = logits.argmax(1)
        if self._subset is not None:
            logits = logits[:, self._subset]
            wanted = np.where(right >= 0, self._subset[right], -1)
        else:
            wanted = right
        wide = logits.astype(np.float64)
        rows, first = np.arange(len(wide)), right[:, 0]
        log_probabilities = wide - _log_sum_exp(wide)[:, None]
        probabilities = np.exp(log_probabilities)
        order = np.argsort(-wide, axis=1, kind="stable")[:, :5]  # of equal ones the first, as argmax has it
        answer = order[:, 0]
        single = right.shape[1] == 1
        loss = -log_probabilities[rows, first] if single else np.full(len(rows), np.nan)
        distance = (probabilities**2).sum(1) - 2 * probabilities[rows, first] + 1
        self._batches.append((
            samples.astype(np.int32),
            answer.astype(np.int16),
            (right == answer[:, None]).any(1),
            (right[:, :, None] == order[:, None]).any((1, 2)),
            (wanted == everywhere[:, None]).any(1),
            probabilities[rows, answer],
            loss,
            distance if single else loss,
        ))  # fmt: skip
        if single:
            for place, scale in enumerate(2.0**-LOG2_TEMPERATURES):
                scaled = logits * np.float32(scale)
                self._losses[place] += (_log_sum_exp(scaled) - scaled[rows, first]).sum(dtype=np.float64)

    def result(self) -> Answers:
        """All of it, in the order of the images' numbers; there must be at least one."""
        columns = [np.concatenate(column) for column in zip(*self._batches, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        names = [field.name for field in fields(Answers)][: len(columns)]
        sorted_columns: Any = {name: column[order] for name, column in zip(names, columns, strict=True)}
        return Answers(**sorted_columns, losses=self._losses)


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(1))
