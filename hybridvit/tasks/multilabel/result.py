"""The labels that a picture has, as a model says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.scores import Columns, Result
from hybridvit.strip import over_a_strip
from hybridvit.task import Outputs

ANSWER = "label_logits"  # what a model gives: of each class the logit of its score
THRESHOLD = 0.5  # a score above it says that the picture has the label
TOP = 5
ROUNDING = 0.01  # scores that differ by less are the same to a person, on whichever side of the threshold


@dataclass(frozen=True, kw_only=True, eq=False)
class MultilabelResult(Result):
    """The scores of all classes for one picture."""

    lies_in_picture: ClassVar[bool] = False

    names: Sequence[str]
    scores: np.ndarray  # of each name, 0 to 1
    most: int | None = None  # labels to show, whatever their scores; None: those above the threshold

    @property
    def num_said(self) -> int:
        """Labels above the threshold."""
        return int((self.scores > THRESHOLD).sum())

    def highest(self, count: int) -> list[tuple[str, int, float]]:
        """Name, index and score of the labels with the highest scores."""
        order = np.argsort(-self.scores, kind="stable")[:count].tolist()
        return [(self.names[index], index, float(self.scores[index])) for index in order]

    def to_dict(self) -> dict[str, Any]:
        """The labels above the threshold, and the most likely ones on either side of it."""
        counts = {"predictions": self.num_said, "top": self.most or TOP}
        return {
            key: [
                {"class": name, "index": index, "score": round(score, 6)} for name, index, score in self.highest(count)
            ]
            for key, count in counts.items()
        }

    @property
    def columns(self) -> Columns:
        labels: Columns = {"class": str, "index": int, "score": float}
        return {"predictions": [labels], "top": [labels]}

    def lines(self) -> list[str]:
        lines = [
            f"  {100 * round(score, 6):6.2f} %  {name}{'' if score > THRESHOLD else '  (not above 50 %)'}"
            for name, _, score in self.highest(self.num_said if self.most is None else self.most)
        ]
        ((name, _, score),) = self.highest(1)
        return lines or [f"  no label above 50 %; the highest is {name} with {100 * score:.2f} %"]

    def agrees(self, other: Result) -> bool:
        """The same labels, but for those whose scores differ by rounding alone."""
        if not isinstance(other, MultilabelResult):
            return False
        same = (self.scores > THRESHOLD) == (other.scores > THRESHOLD)
        return bool((same | (np.abs(self.scores - other.scores) < ROUNDING)).all())

    def draw(self, picture: Image.Image) -> Image.Image:
        """The picture over a strip with its labels."""
        said = ", ".join(f"{name} {100 * score:.0f} %" for name, _, score in self.highest(self.num_said))
        return over_a_strip(picture, said or "no label")


def scores_of(logits: np.ndarray) -> np.ndarray:
    """The scores, 0 to 1, of logits: the sigmoid, in double precision."""
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64).clip(-700, 700)))


def results_of(outputs: Outputs, card: ModelCard, most: int | None = None) -> Sequence[MultilabelResult]:
    """The scores of all classes for each picture, of which `most` are shown; by default those above the threshold.

    Raises UsageError for outputs that are no labels.
    """
    if ANSWER not in outputs:
        raise UsageError(
            f"gives {', '.join(outputs)}, so it names no labels. Call what `hybridvit.load` opens, or export the model "
            "again with --returns logits."
        )
    scores = scores_of(outputs[ANSWER])
    names = card.class_names or [f"class {index}" for index in range(scores.shape[1])]
    return [MultilabelResult(names=names, scores=row, most=most) for row in scores]
