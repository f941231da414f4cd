"""All that can be shown to a model, as one stream of pictures: image files, addresses, frames of videos and cameras."""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image

from hybridvit.data.decode import ImageSource
from hybridvit.data.scan import Say, find_images, is_url, is_video, quiet
from hybridvit.data.video import CAMERA, NEEDS_PYAV, Video, have_pyav
from hybridvit.errors import ImageDecodeError, UsageError, plural

Input = Path | str
"""A file, or the text of an address or of a camera."""


@dataclass(frozen=True, kw_only=True)
class FrameTaking:
    """Which frames of a video or a camera are shown."""

    every: int = 1
    most: int | None = None  # of each; all there are without it

    def __post_init__(self) -> None:
        """Raise UsageError for numbers below 1."""
        for option, number in (("every", self.every), ("frames", self.most)):
            if number is not None and number < 1:
                raise UsageError(f"--{option} is {number}, but it must be at least 1. Leave it out for all frames.")

    def check(self, inputs: "Sequence[Input]") -> None:
        """Raise UsageError where it would be ignored: nothing among the inputs has frames."""
        option = "frames" if self.most is not None else "every" if self.every != 1 else ""
        if option and not any(map(is_moving, inputs)):
            raise UsageError(f"--{option} is for videos and cameras, and there is none among the images. Leave it out.")


ALL_FRAMES = FrameTaking()


class FrameAt(NamedTuple):
    """One frame of a video or a camera."""

    video: Input
    frame: int  # from 0
    seconds: float  # after the first

    def __str__(self) -> str:
        return f"{self.video}, frame {self.frame} ({self.seconds:.2f} s)"


class Footage(NamedTuple):
    """What a frame is a part of."""

    rate: Fraction  # shown frames per second
    seconds: float | None  # that it takes, if the file says so


Content: TypeAlias = ImageSource | Image.Image | ImageDecodeError
"""A file, the bytes of one, or a picture that is decoded and upright; why it could not be had."""


class Shown(NamedTuple):
    """One picture."""

    source: Input
    content: Content | None  # None once it is not needed any more
    frame: int | None = None  # of a video, from 0
    seconds: float | None = None  # after its first frame
    footage: Footage | None = None

    @property
    def where(self) -> "Input | FrameAt":
        """The input, or of a video the place in it."""
        if self.frame is None or self.seconds is None:
            return self.source
        return FrameAt(self.source, self.frame, self.seconds)


def find_inputs(words: Iterable[str | os.PathLike[str]], *, say: Say = quiet) -> list[Input]:
    """What the words of a command line mean: addresses, cameras, and what `find_images` finds, videos among it.

    Raises DatasetError as `find_images`, UsageError for videos and cameras without PyAV. Where it is missing, videos
    that lie among pictures are left out, and `say` is told.
    """
    found: dict[Input, None] = {}
    for word in words:
        text = os.fspath(word)
        if is_url(text) or text.startswith(CAMERA):
            files: Sequence[Input] = [text]
        else:
            files = find_images([text], videos=True, say=say)
        moving = [each for each in files if is_moving(each)]
        if moving and not have_pyav():
            if len(moving) == len(files):
                raise UsageError(NEEDS_PYAV)
            say(f"Left out of {text}: {plural(len(moving), 'video')}. {NEEDS_PYAV}")
            files = [each for each in files if not is_moving(each)]
        found.update(dict.fromkeys(files))
    return list(found)


def is_camera(source: Input) -> bool:
    """Whether it never ends."""
    return isinstance(source, str) and source.startswith(CAMERA)


def is_moving(source: Input) -> bool:
    """Whether it has frames: a video file or a camera."""
    return is_camera(source) or (isinstance(source, Path) and is_video(str(source)))


def pictures(inputs: Iterable[Input], taking: FrameTaking = ALL_FRAMES) -> Generator[Shown, None, None]:
    """The pictures of all inputs, in order. What cannot be had is one picture with the reason; the others go on.

    A damaged video gives its frames, and then the reason.
    """
    for source in inputs:
        if is_moving(source):
            yield from _frames(source, taking)
        elif isinstance(source, Path):
            yield Shown(source, source)
        else:
            from hybridvit.data.url import fetch  # here, since Python's own packages for the web take long to import

            try:
                yield Shown(source, fetch(source))
            except ImageDecodeError as error:
                yield Shown(source, error)


def _frames(source: Input, taking: FrameTaking) -> Generator[Shown, None, None]:
    try:
        with closing(Video(str(source), None if is_camera(source) else Path(source))) as video:
            footage = Footage(video.rate / taking.every, video.seconds)
            with closing(video.frames(every=taking.every)) as frames:
                for place, frame in enumerate(frames, start=1):
                    yield Shown(source, frame.image, frame.number, frame.seconds, footage)
                    if place == taking.most:
                        return
    except ImageDecodeError as error:
        yield Shown(source, error)
