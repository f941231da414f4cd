"""A model that answers with rows of a table, and how many pictures it computes at once."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hybridvit.answers.sink import row_of
from hybridvit.data.ahead import ahead
from hybridvit.data.inputs import Shown
from hybridvit.data.preprocess import shows_all
from hybridvit.errors import CheckpointError, ImageDecodeError, OutOfMemory, UsageError, nearest
from hybridvit.export.bundle import card_metadata
from hybridvit.jobs.model_files import model_digest
from hybridvit.jobs.schema import FILES, arrow_type, schema_of
from hybridvit.loading import Device
from hybridvit.predictor import Answer, Predictor, Prepared
from hybridvit.scores import Columns

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

PREDICTIONS = "predictions"
SIZES = (1, 2, 4, 8, 16, 32)
ENOUGH = 0.95  # of the best throughput: the smallest batch that reaches it is taken
BUDGET_S = 3.0
_ROUNDS = 5
_PROBE = (64, 48)  # of a grey picture


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of each picture; the answers of a job are one table, so all workers ask the same."""

    top: int | None = None
    returns: str = PREDICTIONS
    files: bool = False


class Answerer:
    """A model, opened and ready to answer a question.

    Raises CheckpointError for a file that is not the one with that `sha256`, and as Predictor; UsageError for a
    question that the file does not answer.
    """

    def __init__(
        self,
        model: str | Path,
        question: Question,
        *,
        sha256: str,
        device: Device = "cpu",
        threads: int | None = None,
        batch: int | None = None,
    ) -> None:
        if (found := model_digest(Path(model))) != sha256:
            raise CheckpointError(
                f"{model} has the SHA-256 {found[:12]}..., but this job is of a model with {sha256[:12]}.... Put that "
                "file back, or begin anew with --overwrite."
            )
        self.predictor = Predictor(model, device=device, threads=threads, workers=threads or 1)
        self._question = question
        self._is_whole = question.returns == PREDICTIONS
        metadata = {**card_metadata(self.predictor.card), "hybridvit.model_sha256": sha256}
        self.schema = self._schema(metadata)
        self.batch = batch or self._best_batch()

    def rows(self, shown: Generator[Shown, None, None]) -> Generator[dict[str, Any], None, None]:
        """A row for each picture, in their order; the next ones are decoded while these are computed."""
        if not self._is_whole:
            yield from self._outputs(shown)
            return
        with closing(self.predictor.stream(shown, batch=self.batch, most=self._question.top)) as answers:
            for answer in answers:
                yield self._row(answer)

    def _row(self, answer: Answer) -> dict[str, Any]:
        row = row_of(answer)
        if answer.picture_size is not None:
            row["height"], row["width"] = answer.picture_size
        if self._question.files and not isinstance(answer.result, ImageDecodeError):
            row["files"] = [{"name": name, "content": content} for name, content in answer.result.files().items()]
        return row

    def _outputs(self, shown: Generator[Shown, None, None]) -> Iterator[dict[str, Any]]:
        """What the file gives, as it stands."""
        name = self._question.returns
        with closing(ahead(self._prepared(shown), 1)) as groups:
            for group in groups:
                inputs = [ready for _, ready in group if isinstance(ready, Prepared)]
                values = iter(self.predictor.runner(np.stack([each.image for each in inputs]))[name] if inputs else ())
                for source, ready in group:
                    if isinstance(ready, ImageDecodeError):
                        yield bad_row(source, str(ready))
                        continue
                    height, width = ready.frame.picture_size
                    yield {"image": source, "width": width, "height": height, name: next(values).ravel()}

    def _prepared(
        self, shown: Generator[Shown, None, None]
    ) -> Generator[list[tuple[str, Prepared | ImageDecodeError]], None, None]:
        with closing(shown):
            numbered = groupby(enumerate(shown), lambda each: each[0] // self.batch)
            for _, group in numbered:
                yield [(str(each.source), self._ready(each)) for _, each in group]

    def _ready(self, shown: Shown) -> Prepared | ImageDecodeError:
        if isinstance(shown.content, ImageDecodeError):
            return shown.content
        assert shown.content is not None, "a picture that is still to be answered has its content"
        try:
            return self.predictor.prepare(self.predictor.upright(shown.content, name=str(shown.source)))
        except ImageDecodeError as error:
            return error

    def _schema(self, metadata: dict[str, str]) -> "Schema":
        """Found by asking: what cannot be answered is known before the work."""
        picture = Image.new("RGB", _PROBE, "grey")
        if not self._is_whole:
            return schema_of({}, metadata).append(self._output_field(picture))
        (result,) = self.predictor([picture], most=self._question.top)
        assert not isinstance(result, ImageDecodeError), "a picture that is decoded needs no decoding"
        files: Columns = {"files": [FILES]} if self._question.files else {}
        return schema_of({**result.columns, **files}, metadata)

    def _output_field(self, picture: Image.Image) -> Any:
        import pyarrow

        name, card, path = self._question.returns, self.predictor.card, self.predictor.path
        if self._question.top is not None or self._question.files:
            raise UsageError(f"--top and --files are of predictions, but --returns is '{name}'. Leave them out.")
        outputs = self.predictor.runner(self.predictor.prepare(picture).image[None])
        if name not in outputs:
            raise UsageError(
                f"{path} gives no '{name}'. {nearest(name, [PREDICTIONS, *outputs])}. For another, export the model "
                "again: hybridvit export --returns"
            )
        if shows_all(card.preprocessing) and card.preprocessing.crop_mode != "letterbox":
            raise UsageError(
                f"--returns is '{name}', but {path} takes pictures of any size, so its {name} would differ in size. "
                "Export it with one --image_size."
            )
        kind: DataType = pyarrow.list_(pyarrow.float32(), int(outputs[name][0].size))
        if outputs[name].dtype.kind in "iu":
            kind = pyarrow.list_(arrow_type(int), int(outputs[name][0].size))
        return pyarrow.field(name, kind, metadata={"shape": str(list(outputs[name].shape[1:]))})

    def _best_batch(self) -> int:
        """The smallest batch that is nearly as fast as the fastest: on CPUs larger ones are often slower."""
        image = self.predictor.prepare(Image.new("RGB", _PROBE, "grey")).image
        return best_batch(lambda size: self.predictor.runner(np.stack([image] * size)), SIZES)


def best_batch(answer: Any, sizes: Sequence[int]) -> int:
    """The smallest of `sizes` with nearly the most pictures per second, found in turns within a few seconds.

    One that memory does not hold ends the trial, and so do those that follow a size that took too long. Raises
    OutOfMemory where memory does not hold even the first.
    """
    fastest: dict[int, float] = {}
    ends = time.monotonic() + BUDGET_S
    for number in range(_ROUNDS):
        for size in sizes if number == 0 else list(fastest):
            began = time.perf_counter()
            try:
                answer(size)
            except OutOfMemory:
                if not fastest:
                    raise
                break
            seconds = (time.perf_counter() - began) / size
            fastest[size] = min(seconds, fastest.get(size, seconds))
            if time.monotonic() > ends:
                break
        if time.monotonic() > ends:
            break
    least = min(fastest.values())
    return min(size for size, seconds in fastest.items() if seconds * ENOUGH <= least)


def bad_row(image: str, error: str) -> dict[str, Any]:
    """The row of a picture without an answer."""
    return {"image": image, "error": error}
