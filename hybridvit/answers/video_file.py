"""A video of drawn frames, written by PyAV whole or not at all."""

import math
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image, ImageOps

from hybridvit.atomic import replacing

_BITS_PER_PIXEL = 0.2  # of MPEG-4 Part 2, which is told a rate; H.264 is told a quality
_LARGEST_CLOCK = 65535  # ticks per second, in MPEG-4 Part 2


class VideoFile:
    """A context that takes frames of one size, at their times.

    H.264 where PyAV comes with an encoder for it, else MPEG-4 Part 2. Sides are made even by a black row or column.
    """

    def __init__(self, path: Path, *, rate: Fraction) -> None:
        """`rate` is that of the frames, in 1/s."""
        self._path, self._stack = path, ExitStack()
        slowest = Fraction(1, _LARGEST_CLOCK)  # which a clock that is limited would round to 0
        self._rate = max(slowest, rate.limit_denominator(max(1, _LARGEST_CLOCK // math.ceil(rate))))
        self._container: Any = None
        self._stream: Any = None
        self._last_tick = -1

    def __enter__(self) -> "VideoFile":
        import av

        temporary = self._stack.enter_context(replacing(self._path))
        self._container = self._stack.enter_context(av.open(str(temporary), "w", format="mp4"))
        self._stack.push(self._flush)
        return self

    def add(self, picture: Image.Image, seconds: float) -> None:
        """The next frame; one of another size than the first is fitted into it, over white."""
        import av

        if self._stream is None:
            self._stream = self._started(picture.size)
        size = (self._stream.width, self._stream.height)
        if picture.size != size:
            even = tuple(side + side % 2 for side in picture.size)
            if even == size:
                picture = picture.crop((0, 0, *size))
            else:  # such as one whose answer takes more lines
                picture = ImageOps.pad(picture.convert("RGB"), size, color="white", centering=(0, 0))
        frame = av.VideoFrame.from_image(picture.convert("RGB"))
        self._last_tick = max(self._last_tick + 1, round(seconds * self._rate))
        frame.pts, frame.time_base = self._last_tick, 1 / self._rate
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def _flush(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what the encoder holds back."""
        if error is None and self._stream is not None:
            self._container.mux(self._stream.encode())

    def _started(self, size: tuple[int, int]) -> Any:
        import av

        has_h264 = "libx264" in av.codecs_available
        stream = self._container.add_stream("libx264" if has_h264 else "mpeg4", rate=self._rate)
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = 1 / self._rate
        if not has_h264:
            stream.bit_rate = max(200_000, int(_BITS_PER_PIXEL * stream.width * stream.height * self._rate))
        return stream
