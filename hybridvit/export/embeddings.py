"""Runners of image towers: the embedding of a picture, of length 1, and classes by a stored matrix of texts."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.export.runners import ExportedRunner, Outputs, Runner
from hybridvit.models.registry import is_tower, num_outputs
from hybridvit.scores import Columns, Result
from hybridvit.task import find_task

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hybridvit.models.zero_shot import TextMatrix

EMBEDDINGS, LOGITS = "embeddings", "logits"
EPS = 1e-12  # of a length
SAME = 0.99  # the least cosine of two embeddings that stand for the same answer
DIGITS = 8  # of a number of an embedding in text, behind the point


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding(Result):
    """Where a picture lies in the space that pictures and texts share: a vector of length 1."""

    lies_in_picture: ClassVar[bool] = False

    vector: np.ndarray  # d, float32

    def to_dict(self) -> dict[str, Any]:
        return {"embedding": [round(float(value), DIGITS) for value in self.vector]}

    @property
    def columns(self) -> Columns:
        return {"embedding": [float]}

    def draw(self, picture: "Image") -> "Image":
        """The picture as it is: there is nothing to see of a vector."""
        return picture.copy()

    def agrees(self, other: Result) -> bool:
        """A cosine of at least 0.99."""
        return isinstance(other, Embedding) and float(self.vector @ other.vector) >= SAME

    def lines(self) -> list[str]:
        return [f"  {' '.join(f'{value:.4f}' for value in self.vector)}"]


class TowerRunner(Runner):
    """Another runner's answers as embeddings of length 1: those of an image tower, a checkpoint or an exported file.

    Raises UsageError for a model that gives no embeddings.
    """

    def __init__(self, inner: Runner, path: object) -> None:
        check_is_tower(inner.card, path)
        if isinstance(inner, ExportedRunner) and not {EMBEDDINGS, LOGITS} & {*inner.spec.outputs}:
            raise UsageError(
                f"{path} gives {', '.join(inner.spec.outputs)}, not embeddings. Export the checkpoint again without "
                "--returns and --top_k."
            )
        self.inner = inner
        self.card, self.runtime, self.callers = inner.card, inner.runtime, inner.callers

    @property
    def usual_batch(self) -> int:
        """That of the runner inside."""
        return self.inner.usual_batch

    def __call__(self, images: "np.ndarray | Tensor") -> Outputs:
        outputs = self.inner(images)
        vectors = outputs[EMBEDDINGS if EMBEDDINGS in outputs else LOGITS]
        lengths = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
        return {EMBEDDINGS: vectors / np.maximum(lengths, EPS)}


class TextRunner(Runner):
    """A tower and a matrix of texts as one classifier: `with_text_matrix` for files that are exported already.

    Raises UsageError for a file that gives no embeddings, or of another tower than the matrix.
    """

    def __init__(self, tower: TowerRunner, matrix: "TextMatrix") -> None:
        matrix.check_fits(tower.card, num_outputs(tower.card))
        self.inner = tower.inner
        self._tower, self._texts = tower, matrix.logit_scale * matrix.embeddings.numpy().T
        options = {**tower.card.options, "num_classes": len(matrix.class_names)}
        self.card = replace(tower.card, class_names=matrix.class_names, options=options)
        self.runtime, self.callers = tower.runtime, tower.callers

    @property
    def usual_batch(self) -> int:
        """That of the runner inside."""
        return self.inner.usual_batch

    def __call__(self, images: "np.ndarray | Tensor") -> Outputs:
        return {LOGITS: self._tower(images)[EMBEDDINGS] @ self._texts}


def check_is_tower(card: ModelCard, path: object) -> None:
    """Raise UsageError for a model that gives no embeddings in the space of texts."""
    if is_tower(card):
        return
    has = f"answers with {len(card.class_names)} classes" if card.class_names else "is no image tower of such"
    if find_task(card.task).heads:
        has = f"is of the task '{card.task}'"
    elif not num_outputs(card):
        has = "was left without its projection, as those inside language models are"
    raise UsageError(
        f"{path} has no embeddings in a space of texts: this {card.architecture} {has}. Give an image tower, such as "
        "fastvit_mci0, with the projection that it was published with."
    )


def check_answers(runner: Runner, path: object) -> None:
    """Raise UsageError for an image tower that is asked for classes, of which it knows none by itself."""
    outputs = {*runner.spec.outputs} if isinstance(runner, ExportedRunner) else {LOGITS}
    if is_tower(runner.card) and outputs & {EMBEDDINGS, LOGITS}:
        raise UsageError(
            f"{path} is an image tower: it answers with an embedding, not with classes. Give the texts of the classes "
            "with --zero_shot TEXTS.safetensors, or take the embeddings with `hybridvit predict --embeddings FILE`."
        )
