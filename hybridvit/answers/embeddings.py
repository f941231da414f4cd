"""Embeddings as one file: a matrix with the pictures that its rows are of, or rows as of any other answers."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import numpy as np

from hybridvit.answers.sink import Sink
from hybridvit.answers.table import table_at
from hybridvit.atomic import check_writable, replacing
from hybridvit.card import ModelCard
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.export.embeddings import Embedding
from hybridvit.predictor import Answer, Predictor

TABLES, MATRICES = (".parquet", ".jsonl"), (".safetensors", ".npy")


def check_embeddings_file(path: Path) -> None:
    """Raise UsageError or DiskFull, before any work, for a file that embeddings cannot be written to."""
    if path.suffix in TABLES:
        table_at(path)
        return
    if path.suffix not in MATRICES:
        raise UsageError(
            f"The embeddings are to go to {path}, but must go to a name that ends in {', '.join(MATRICES)} (a matrix) "
            f"or {', '.join(TABLES)} (a row for each picture)."
        )
    if path.suffix == ".safetensors" and find_spec("safetensors") is None:
        raise UsageError(
            f"{path} needs the package safetensors. Run: pip install safetensors, or give a name that ends in .npy."
        )
    check_writable(path)


def embeddings_at(path: Path, predictor: Predictor) -> Sink:
    """What writes the embeddings to `path`, as its suffix says. Raises as `check_embeddings_file`."""
    check_embeddings_file(path)
    return table_at(path) if path.suffix in TABLES else MatrixFile(path, predictor.card)


class MatrixFile(Sink):
    """float32 (pictures, width), in the order in which they were shown.

    As .npy with a row of NaN for what could not be decoded, so that the rows can be counted off. As safetensors,
    `embeddings`, without those; the metadata have `images`, a JSON list of what each row is of, and of the tower
    `architecture`, `source`, `licence` and `embedding_space`.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        self._path, self._card = path, card
        self._rows: list[np.ndarray | None] = []
        self._images: list[str] = []

    def take(self, answer: Answer) -> None:
        result = answer.result
        assert isinstance(result, Embedding | ImageDecodeError), "asked for embeddings, a predictor gives nothing else"
        self._rows.append(None if isinstance(result, ImageDecodeError) else result.vector)
        self._images.append(str(answer.shown.where))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        with replacing(self._path) as temporary:
            if self._path.suffix == ".npy":
                self._write_plain(temporary)
            else:
                self._write_named(temporary)

    def _write_plain(self, path: Path) -> None:
        width = next((len(row) for row in self._rows if row is not None), 0)
        missing = np.full(width, np.nan, np.float32)
        with path.open("wb") as file:
            np.save(file, _matrix([missing if row is None else row for row in self._rows]))

    def _write_named(self, path: Path) -> None:
        from safetensors.numpy import save_file

        kept = [(row, image) for row, image in zip(self._rows, self._images, strict=True) if row is not None]
        matrix = _matrix([row for row, _ in kept])
        card = self._card
        about = {
            "images": json.dumps([image for _, image in kept], ensure_ascii=False),
            "architecture": card.architecture,
            "source": card.source,
            "licence": card.licence,
            "embedding_space": card.embedding_space,
        }
        save_file({"embeddings": matrix}, path, metadata=about)


def _matrix(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
