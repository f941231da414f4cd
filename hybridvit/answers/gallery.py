"""A folder of pictures and videos with the answers drawn on them, and what else of an answer is a file of its own."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

from hybridvit.answers.sink import Sink
from hybridvit.answers.video_file import VideoFile
from hybridvit.atomic import check_writable, replacing
from hybridvit.data.inputs import Input, is_moving
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.predictor import Answer, Predictor
from hybridvit.scores import PICTURES_BESIDE, Result

_COMPRESSION = 3  # of PNG: a third of the default's time, and little larger


def check_gallery(folder: Path, inputs: Sequence[Input]) -> None:
    """Raise UsageError or DiskFull, before any work, for a folder that takes no files, or whose files are inputs."""
    check_writable(folder, is_folder=True)
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"{folder} is a file, but pictures are to be written into a folder of that name. Give another."
        )
    given = {each.resolve() for each in inputs if isinstance(each, Path)}
    for source, name in names_of(inputs).items():
        path = folder / f"{name}{_suffix(source)}"
        if path.resolve() in given:
            raise UsageError(f"{path} is shown to the model, and would be written over. Give another folder.")


def names_of(inputs: Sequence[Input]) -> dict[Input, str]:
    """What is written for each input is called so, without suffix.

    As the input itself; where two would be the same, all stand in folders as they do below the one that they share, and
    those still alike keep their endings.
    """
    short = {each: _stem(each) for each in inputs}
    if _all_differ(short):
        return short
    folders = [str(each.absolute().parent) for each in inputs if isinstance(each, Path)]
    shared = os.path.commonpath(folders) if folders else ""
    deep = {
        each: (Path(os.path.relpath(each.absolute().parent, shared)) / _stem(each)).as_posix()
        if isinstance(each, Path)
        else _stem(each)
        for each in inputs
    }
    counts = Counter(name.lower() for name in deep.values())
    full = {
        each: f"{name}{each.suffix if isinstance(each, Path) else ''}" if counts[name.lower()] > 1 else name
        for each, name in deep.items()
    }
    return (
        full if _all_differ(full) else {each: f"{name}-{place}" for place, (each, name) in enumerate(full.items(), 1)}
    )


class Gallery(Sink):
    """Writes `folder`/NAME.png for a picture, NAME.mp4 for a video; and Result.files() as NAME.FILE, or for a video as
    NAME/NUMBER.FILE. Where the task makes files of several answers together, these are NAME.FILE of a video, without
    those of its frames, and FILE of pictures.

    What could not be had is left out; of a damaged video there is what could be read.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input], predictor: Predictor) -> None:
        self._folder, self._names, self._predictor = folder, names_of(inputs), predictor
        self._keeps = predictor.task.has_files_of_several
        self._stack = ExitStack()
        self._video: VideoFile | None = None
        self._of: Input | None = None  # what the video is of
        self._frames: list[tuple[float, Result]] = []  # of the video
        self._pictures: list[tuple[str, Result]] = []

    def take(self, answer: Answer) -> None:
        shown, result = answer.shown, answer.result
        if shown.source != self._of:
            self._finish()
        if isinstance(result, ImageDecodeError) or isinstance(shown.content, ImageDecodeError | None):
            return
        drawn = result.draw(self._predictor.upright(shown.content, name=str(shown.source)))
        name = self._names[shown.source]
        if shown.footage is None or shown.frame is None or shown.seconds is None:
            with replacing(self._place(f"{name}.png")) as temporary:
                drawn.save(temporary, compress_level=_COMPRESSION)
            self._write_files(f"{name}.", result.files())
            if self._keeps:
                self._pictures.append((name, result))
            return
        if self._video is None:
            self._of = shown.source
            self._video = self._stack.enter_context(VideoFile(self._place(f"{name}.mp4"), rate=shown.footage.rate))
        self._video.add(drawn, shown.seconds)
        if self._keeps:  # what they are together takes the place of files of each
            self._frames.append((shown.seconds, result))
        else:
            self._write_files(f"{name}/{shown.frame:06}.", result.files())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            self._finish()
            if self._pictures:
                names, results = zip(*self._pictures, strict=True)
                self._write_files("", self._predictor.task.files_of_pictures(names, results))
        return self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        self._stack.close()
        if self._of is not None and self._frames:
            seconds, results = zip(*self._frames, strict=True)
            self._write_files(f"{self._names[self._of]}.", self._predictor.task.files_of_video(results, seconds))
        self._video = self._of = None
        self._frames = []

    def _write_files(self, start: str, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            with replacing(self._place(f"{start}{name}")) as temporary:
                temporary.write_bytes(content)

    def _place(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _stem(source: Input) -> str:
    if isinstance(source, Path):
        return source.stem
    last = unquote(urlsplit(source).path).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]+", "_", Path(last).stem if "://" in source else source) or "picture"


def _suffix(source: Input) -> str:
    return ".mp4" if is_moving(source) else ".png"


def _all_differ(names: dict[Input, str]) -> bool:
    """With what stands beside a drawing too: the one of an input called a.labels, and the labels of the input a."""
    own = {name.lower() for name in names.values()}
    beside = {f"{name}.{Path(each).stem}" for name in own for each in PICTURES_BESIDE}
    return len(own) == len(names) and own.isdisjoint(beside)
