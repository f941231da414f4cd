"""Pictures in, answers out: what every command and program that uses a model on pictures does."""

import logging
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.data.ahead import ahead, side_by_side
from hybridvit.data.decode import ImageSource
from hybridvit.data.depth import dark, is_dark
from hybridvit.data.inputs import Content, Shown
from hybridvit.data.preprocess import frame_of, opened, preprocess
from hybridvit.data.tiles import Tiling
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.evaluate.tiled import checked, tiled
from hybridvit.export.embeddings import EMBEDDINGS, Embedding, check_answers
from hybridvit.loading import Device, open_runner
from hybridvit.scores import Result
from hybridvit.task import NO_OPTIONS, Outputs, TaskOptions, find_task

logger = logging.getLogger(__name__)

TILES_AT_ONCE = 1  # of a picture, if nothing else is said: answers to tiles can be large
_MOST_KEPT_BYTES = 256 << 20  # of decoded pictures in the groups that are worked on at once


class Prepared(NamedTuple):
    """One picture as the model takes it."""

    image: np.ndarray  # c h w
    frame: Frame


class Answer(NamedTuple):
    """One picture with what the model says to it, or why it could not be had."""

    shown: Shown
    result: Result | ImageDecodeError
    picture_size: tuple[int, int] | None = None  # height, width of the upright picture, where it could be decoded


_Ready: TypeAlias = Prepared | Image.Image | ImageDecodeError
"""An input, a picture to be cut into tiles, or why there is none."""


class Predictor:
    """A checkpoint or an exported file of any task, ready to answer to encoded pictures.

    It can be sent to another process as a class with its arguments, as Ray Data's `map_batches` and the datasets
    library's `map` do. Raises as `hybridvit.loading.open_runner`; UsageError for a tiling where the model's task joins
    no tiles. `said` is what its task is told of the pictures, such as {"side": "left"} of hands; UsageError for what
    the task has no use for. `workers` threads answer the pictures of a `stream` side by side, each on its share of
    `threads`, where the file's runtime takes that: many pictures come faster, a single one slower.

    An image tower answers with vectors of length 1 (`Embedding`) where `embeddings` is set, and with classes where
    `zero_shot` is a file of their texts (docs/mci.md); UsageError for a tower without one of both.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: Device = "auto",
        threads: int | None = None,
        trust_changed: bool = False,
        tiling: Tiling | None = None,
        said: TaskOptions = NO_OPTIONS,
        zero_shot: str | os.PathLike[str] | None = None,
        embeddings: bool = False,
        workers: int = 1,
    ) -> None:
        self.path, self.embeddings = path, embeddings
        self.runner = open_runner(
            path,
            device=device,
            threads=threads,
            trust_changed=trust_changed,
            callers=workers if tiling is None else 1,  # tiles are computed one batch after the other
            zero_shot=zero_shot,
            embeddings=embeddings,
        )
        self.card = self.runner.card
        self.task = find_task(self.card.task).asked(said)
        self.tiling = tiling
        if tiling is not None:
            if embeddings:
                raise UsageError("The embedding of a picture is not joined from those of its tiles. Leave --tile out.")
            checked(self.task, path)
        self._warning = threading.Lock()  # held by the one thread that warns, and never released

    def check_answers(self) -> None:
        """Raise UsageError for an image tower that is asked for classes; its runner alone can be called."""
        if not self.embeddings:
            check_answers(self.runner, self.path)

    def prepare(self, source: ImageSource | Image.Image) -> Prepared:
        """Decode a file, or the bytes of one, and prepare it as the card says; a decoded picture must be upright.

        Raises ImageDecodeError.
        """
        return self._prepared(self.upright(source), _name_of(source))

    def upright(self, source: ImageSource | Image.Image, *, name: str = "") -> Image.Image:
        """The picture in whose pixels answers are; `name` is what errors call bytes. Raises ImageDecodeError."""
        if isinstance(source, Image.Image):
            return source
        picture, facts = opened(source, self.card.preprocessing, name=name)
        if self.card.preprocessing.levels is None and is_dark(facts) and self._warning.acquire(blocking=False):
            logger.warning(dark([facts]))
        return picture

    def __call__(
        self, sources: Sequence[ImageSource | Image.Image], *, most: int | None = None
    ) -> list[Result | ImageDecodeError]:
        """The answer to each picture, or why it could not be decoded, in their order.

        Pictures that are prepared to one size are computed at once, those that are tiled one by one.

        `most` is how many entries an answer has at most, where it is a list. Raises UsageError for a file that gives
        no answer to a picture, such as features, and for a number below 1.
        """
        self.check_answers()
        _check_count("most", most)
        return self._results([self._ready(source) for source in sources], TILES_AT_ONCE, most)

    def stream(
        self,
        shown: Generator[Shown, None, None],
        *,
        batch: int | None = None,
        most: int | None = None,
        keeps: bool = False,
    ) -> Generator[Answer, None, None]:
        """The answers to a stream of pictures (`hybridvit.data.inputs.pictures`), in their order.

        The next pictures are decoded while these are computed, `batch` of them at once (of tiles, as many of one
        picture); by default as many as the file's runtime computes fastest. With `keeps` each answer has its picture
        with it, to draw on; without, only the file if it was one. Raises UsageError for a number below 1, and as a
        call.
        """
        self.check_answers()
        _check_count("--top", most)
        _check_count("--batch", batch)
        at_once = batch or TILES_AT_ONCE
        callers = self.runner.callers
        groups = _groups(
            shown, 1 if self.tiling else batch or self.runner.usual_batch, most_bytes=_MOST_KEPT_BYTES // callers
        )
        if callers > 1:
            answered = side_by_side(
                groups, lambda group: self._answers(self._made_ready(group, keeps), at_once, most), callers
            )
        else:
            answered = self._one_by_one(groups, keeps, at_once, most)
        with closing(answered):
            for answers in answered:
                yield from answers

    def _one_by_one(
        self, groups: Generator[list[Shown], None, None], keeps: bool, at_once: int, most: int | None
    ) -> Generator[list[Answer], None, None]:
        """The answers to each group, while a thread makes the next one ready."""

        def ready() -> Generator[list[tuple[Shown, _Ready]], None, None]:
            with closing(groups):
                yield from (self._made_ready(group, keeps) for group in groups)

        with closing(ahead(ready(), 1)) as made:
            yield from (self._answers(group, at_once, most) for group in made)

    def _made_ready(self, group: list[Shown], keeps: bool) -> list[tuple[Shown, _Ready]]:
        made: list[tuple[Shown, _Ready]] = []
        for each in group:
            assert each.content is not None, "a picture that is still to be answered has its content"
            ready = self._ready(each.content, name=str(each.source))
            if not keeps and not isinstance(each.content, os.PathLike):
                each = each._replace(content=None)
            made.append((each, ready))
        return made

    def _answers(self, group: Sequence[tuple[Shown, _Ready]], at_once: int, most: int | None) -> list[Answer]:
        results = self._results([ready for _, ready in group], at_once, most)
        return [Answer(each, result, _size_of(ready)) for (each, ready), result in zip(group, results, strict=True)]

    def _ready(self, source: Content, name: str = "") -> _Ready:
        if isinstance(source, ImageDecodeError):
            return source
        name = name or _name_of(source)
        try:
            picture = self.upright(source, name=name)
            is_cut = self.tiling is not None and self.tiling.cuts(picture.size)
            return picture if is_cut else self._prepared(picture, name)
        except ImageDecodeError as error:
            return error

    def _prepared(self, picture: Image.Image, name: str) -> Prepared:
        preprocessing = self.card.preprocessing
        shown = self.task.shown(picture, preprocessing, name)
        return Prepared(*(shown or (preprocess(picture, preprocessing), frame_of(picture.size, preprocessing))))

    def _results(
        self, ready: Sequence[_Ready], tiles_at_once: int, most: int | None
    ) -> list[Result | ImageDecodeError]:
        """The answers in their order; inputs of one size are computed at once."""
        found: dict[int, Result | ImageDecodeError] = {}
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, each in enumerate(ready):
            if isinstance(each, ImageDecodeError):
                found[place] = each
            elif isinstance(each, Image.Image):
                found[place] = self._of_tiles(each, tiles_at_once, most)
            else:
                by_size.setdefault(each.image.shape, []).append(place)
        for places in by_size.values():
            inputs = [each for each in (ready[place] for place in places) if isinstance(each, Prepared)]
            outputs = self.runner(np.stack([each.image for each in inputs]))
            found |= dict(zip(places, self._read(outputs, [each.frame for each in inputs], most), strict=True))
        return [found[place] for place in range(len(ready))]

    def _of_tiles(self, picture: Image.Image, at_once: int, most: int | None) -> Result:
        assert self.tiling is not None
        outputs = tiled(picture, self.tiling, self.runner, self.task, self.card, at_once=at_once)
        return self._read(outputs, [Frame.whole(picture.height, picture.width)], most)[0]

    def _read(self, outputs: Outputs, frames: Sequence[Frame], most: int | None) -> Sequence[Result]:
        if self.embeddings:
            return [Embedding(vector=vector) for vector in outputs[EMBEDDINGS]]
        try:
            return self.task.results(outputs, frames, self.card, most=most)
        except UsageError as error:
            raise UsageError(f"{self.path} {error}") from error


def _check_count(option: str, count: int | None) -> None:
    if count is not None and count < 1:
        raise UsageError(f"{option} is {count}, but it must be at least 1. Leave it out for the default.")


def _groups(shown: Generator[Shown, None, None], size: int, *, most_bytes: int) -> Generator[list[Shown], None, None]:
    """Pictures that are computed together; fewer where they come decoded and are large."""
    group: list[Shown] = []
    kept_bytes = 0
    with closing(shown):
        for each in shown:
            group.append(each)
            kept_bytes += _num_bytes(each.content)
            if len(group) == size or kept_bytes > most_bytes:
                yield group
                group, kept_bytes = [], 0
    if group:
        yield group


def _size_of(ready: _Ready) -> tuple[int, int] | None:
    """Height and width of the upright picture."""
    if isinstance(ready, Prepared):
        return ready.frame.picture_size
    return (ready.height, ready.width) if isinstance(ready, Image.Image) else None


def _name_of(source: Content) -> str:
    """The path of a picture; empty where it is none of a file."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else ""


def _num_bytes(each: object) -> int:
    """Of a picture that is kept decoded."""
    return 3 * each.width * each.height if isinstance(each, Image.Image) else 0
