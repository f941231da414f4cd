"""What integers cost a model that gives embeddings: there is nothing true of them, but they can be compared."""

from collections.abc import Sequence

import numpy as np

from hybridvit.batch import Batch, Frame
from hybridvit.card import ModelCard
from hybridvit.export.embeddings import EMBEDDINGS, Embedding
from hybridvit.export.original import Original
from hybridvit.export.parity import cosines
from hybridvit.quantity import Quantity
from hybridvit.scores import Scores
from hybridvit.task import Metric, Outputs

COSINE = Quantity(name="cosine", title="mean cosine to fp32", unit="", decimals=4)
MAX_LOST = 0.01  # of it, if nothing else is said: a file that is further from the model is not kept


class Alike:
    """Judges embeddings by their cosine to those of the model as it was given."""

    headline = COSINE

    def __init__(self, original: Original) -> None:
        self._original = original

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        """The mean cosine over all pictures; there are no examples to show."""
        return _MeanCosine(self._original)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> Sequence[Embedding]:
        """The vectors, of which two are the same answer with a cosine of 0.99."""
        return [Embedding(vector=vector) for vector in outputs[EMBEDDINGS]]


class _MeanCosine(Metric):
    def __init__(self, original: Original) -> None:
        self._original, self._found = original, list[np.ndarray]()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._found.append(cosines(outputs[EMBEDDINGS], self._original(batch.inputs.numpy())[0]))

    def compute(self) -> Scores:
        found = np.concatenate(self._found)
        return Scores(values={COSINE.name: float(found.mean())}, per_image=found)
