"""The classes that a picture may belong to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from hybridvit.card import ModelCard
from hybridvit.data.imagenet import in_words
from hybridvit.errors import UsageError
from hybridvit.scores import Columns, Result
from hybridvit.strip import over_a_strip
from hybridvit.task import Outputs

TOP = 5


@dataclass(frozen=True, kw_only=True)
class ClassifyResult(Result):
    """The most probable classes of one picture, the best first."""

    lies_in_picture: ClassVar[bool] = False

    indices: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        rows = zip(self.names, self.indices, self.probabilities, strict=True)
        return {
            "predictions": [
                {"class": name, "index": index, "probability": round(probability, 6)}
                for name, index, probability in rows
            ]
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The probabilities, indices and names of the classes, each of the length of the list."""
        return {
            "probabilities": np.array(self.probabilities, np.float32),
            "indices": np.array(self.indices, np.int64),
            "labels": np.array([name.encode() for name in self.names], object),
        }

    @property
    def columns(self) -> Columns:
        return {"predictions": [{"class": str, "index": int, "probability": float}]}

    def lines(self) -> list[str]:
        return [
            f"  {100 * round(probability, 6):6.2f} %  {name}"
            for name, probability in zip(self.names, self.probabilities, strict=True)
        ]

    def agrees(self, other: Result) -> bool:
        """The same first class."""
        return isinstance(other, ClassifyResult) and self.indices[0] == other.indices[0]

    def draw(self, picture: Image.Image) -> Image.Image:
        """The picture over a strip with the first answer."""
        return over_a_strip(picture, f"{self.names[0]}: {100 * self.probabilities[0]:.1f} %")


def results_of(outputs: Outputs, card: ModelCard, most: int | None = None) -> Sequence[ClassifyResult]:
    """The `most` most probable classes of each picture; by default five, or as many as the file gives.

    Raises UsageError for outputs that name no classes, or fewer than `most`.
    """
    names = _words(card.class_names)
    if "logits" in outputs:
        logits = np.asarray(outputs["logits"])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        indices = np.argsort(-logits, axis=1, kind="stable")[:, : most or TOP]
        probabilities = np.take_along_axis(powers / powers.sum(axis=1, keepdims=True), indices, 1)
    elif "probabilities" in outputs:
        given = outputs["probabilities"].shape[1]
        if most is not None and most > given:
            raise UsageError(
                f"gives the {given} most probable, but {most} answers are wanted. Ask for {given}, or export the model "
                f"again with --top_k {most}."
            )
        indices, probabilities = (outputs[name][:, : most or TOP] for name in ("indices", "probabilities"))
    else:
        raise UsageError(
            f"gives {', '.join(outputs)}, so it names no classes. Call what `hybridvit.load` opens, or export the "
            "model again with --returns logits."
        )
    return [
        ClassifyResult(
            indices=tuple(places),
            names=tuple(names[index] if names else f"class {index}" for index in places),
            probabilities=tuple(chances),
        )
        for places, chances in zip(indices.tolist(), probabilities.tolist(), strict=True)
    ]


@cache
def _words(class_names: tuple[str, ...]) -> tuple[str, ...]:
    return in_words(class_names)
