"""Pictures in, answers out: what every command and program that uses a model on pictures does."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hybridvit.data.depth import dark, is_dark
from hybridvit.data.preprocess import frame_of, opened, preprocess
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.loading import Device, open_runner
from hybridvit.task import Frame, Result, find_task

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """One picture as the model takes it."""

    image: np.ndarray  # c h w
    frame: Frame


class Predictor:
    """A checkpoint or an exported file of any task, ready to answer to encoded pictures.

    It can be sent to another process as a class with its arguments, as Ray Data's `map_batches` and the datasets
    library's `map` do. Raises as `hybridvit.loading.open_runner`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: Device = "auto",
        threads: int | None = None,
        trust_changed: bool = False,
    ) -> None:
        self.path = path
        self.runner = open_runner(path, device=device, threads=threads, trust_changed=trust_changed)
        self.card = self.runner.card
        self.task = find_task(self.card.task)
        self._has_warned = False

    def prepare(self, source: str | os.PathLike[str] | bytes) -> Prepared:
        """Decode a file, or the bytes of one, and prepare it as the card says. Raises ImageDecodeError."""
        preprocessing = self.card.preprocessing
        picture, facts = opened(source, preprocessing)
        if preprocessing.levels is None and not self._has_warned and is_dark(facts):
            self._has_warned = True
            logger.warning(dark([facts]))
        return Prepared(preprocess(picture, preprocessing), frame_of(picture.size, preprocessing))

    def __call__(
        self, sources: Sequence[str | os.PathLike[str] | bytes], *, most: int | None = None
    ) -> list[Result | ImageDecodeError]:
        """The answer to each picture, or why it could not be decoded, in their order.

        Pictures that are prepared to one size are computed at once.

        `most` is how many entries an answer has at most, where it is a list. Raises UsageError for a file that gives
        no answer to a picture, such as features.
        """
        prepared: list[Prepared | ImageDecodeError] = []
        for source in sources:
            try:
                prepared.append(self.prepare(source))
            except ImageDecodeError as error:
                prepared.append(error)
        good = [each for each in prepared if isinstance(each, Prepared)]
        if not good:
            return [each for each in prepared if isinstance(each, ImageDecodeError)]
        results = iter(self._results(good, most))
        return [each if isinstance(each, ImageDecodeError) else next(results) for each in prepared]

    def _results(self, prepared: Sequence[Prepared], most: int | None) -> list[Result]:
        """The answers in their order; pictures of one size are computed at once."""
        found: dict[int, Result] = {}
        sizes = [each.image.shape for each in prepared]
        for size in dict.fromkeys(sizes):
            places = [place for place, each in enumerate(sizes) if each == size]
            outputs = self.runner(np.stack([prepared[place].image for place in places]))
            frames = [prepared[place].frame for place in places]
            try:
                results = self.task.results(outputs, frames, self.card, most=most)
            except UsageError as error:
                raise UsageError(f"{self.path} {error}") from error
            found |= dict(zip(places, results, strict=True))
        return [found[place] for place in range(len(prepared))]

    def answers(
        self, paths: Sequence[Path], *, batch: int, most: int | None = None
    ) -> Iterator[tuple[Path, Result | ImageDecodeError]]:
        """Each file with its answer, `batch` of them computed at once. Raises UsageError for a number below 1."""
        for option, count in (("top", most), ("batch", batch)):
            if count is not None and count < 1:
                raise UsageError(f"--{option} is {count}, but it must be at least 1. Leave it out for the default.")
        for start in range(0, len(paths), batch):
            group = paths[start : start + batch]
            yield from zip(group, self(group, most=most), strict=True)
