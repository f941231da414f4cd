"""The frames of video files and cameras, upright, by PyAV (the extra "video"): opened, counted, decoded one by one."""

import sys
from collections.abc import Generator
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from hybridvit.errors import ImageDecodeError, UsageError, first_line

if TYPE_CHECKING:
    from pathlib import Path

CAMERA = "camera:"  # before the number or the name of one
NEEDS_PYAV = 'Reading videos and cameras needs the package av. Run: pip install "hybridvit[video]".'
_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
_MISSED_SHARE, _MISSED_FRAMES, _MISSED_SECONDS = 0.02, 2, 1.0
"""So little less than announced is no damage: containers count what is not shown, and are written by estimate."""


class VideoFrame(NamedTuple):
    """One picture of a video."""

    image: Image.Image  # upright RGB
    number: int  # of all its frames, from 0
    seconds: float  # after the first


def have_pyav() -> bool:
    """Whether videos can be read and written here."""
    return find_spec("av") is not None


class Video:
    """A video file or a camera, open. Raises UsageError without PyAV, ImageDecodeError for what cannot be opened."""

    def __init__(self, name: str, file: "Path | None" = None) -> None:
        if not have_pyav():
            raise UsageError(NEEDS_PYAV)
        self.name = name
        self._container = _open_camera(name) if file is None else _open_file(name, str(file))
        try:
            self._stream = self._container.streams.video[0]
        except IndexError:
            self._container.close()
            raise ImageDecodeError(f"{name}: this file has no pictures, only sound or text. Leave it out.") from None
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        """Frames per second, as a hint: those of some videos come unevenly."""
        self.num_frames = int(self._stream.frames) or None
        """As the file announces; None if it does not."""
        self.seconds = self._announced_seconds()
        """As the file announces; None if it does not."""
        self.num_damaged = 0
        """Packets that could not be decoded, so far."""

    def close(self) -> None:
        """The file is let go of."""
        self._container.close()

    def frames(self, *, every: int = 1) -> Generator[VideoFrame, None, None]:
        """The first frame and every `every`th after it.

        Parts that cannot be decoded are passed over; after the last frame ImageDecodeError is raised if there were
        some, or if the file ends before the frames that it announces, with the number of those that could be read.
        """
        first, count, seconds = None, 0, 0.0
        for frame in self._decoded():
            time = float(count / self.rate) if frame.time is None else frame.time
            first = time if first is None else first
            seconds = max(0.0, time - first)
            if count % every == 0:
                yield VideoFrame(_upright(frame), count, seconds)
            count += 1
        self._check_whole(count, seconds)

    def _decoded(self) -> Generator[Any, None, None]:
        import av

        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    self.num_damaged += 1
        except av.error.FFmpegError as error:  # a disk, or a camera that was pulled out
            raise ImageDecodeError(f"{self.name}: reading stopped ({_said(error)}).") from error

    def _announced_seconds(self) -> float | None:
        stream, container = self._stream, self._container
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and len(container.streams) == 1:  # of the longest stream, in microseconds
            return float(container.duration / 1e6)
        return None if self.num_frames is None else float(self.num_frames / self.rate)

    def _check_whole(self, count: int, last_seconds: float) -> None:
        """Raise ImageDecodeError if parts were damaged or are missing."""
        damaged = f"; {self.num_damaged:,} damaged parts were passed over" if self.num_damaged else ""
        fault, read = "damaged", f"{count:,} frames"
        if self.num_frames is not None:
            if self.num_frames - count > max(_MISSED_FRAMES, _MISSED_SHARE * self.num_frames):
                fault, read = "truncated", f"{count:,} of {self.num_frames:,} frames"
        elif self.seconds is not None:
            missing = self.seconds - last_seconds - float(1 / self.rate)
            if missing > max(_MISSED_SECONDS, _MISSED_SHARE * self.seconds):
                fault, read = "truncated", f"{count:,} frames, {last_seconds:.1f} of {self.seconds:.1f} s,"
        if fault == "damaged" and count and not damaged:
            return
        raise ImageDecodeError(
            f"{self.name}: the video is {fault}: {read} could be read{damaged}. Copy it again from where it comes from."
        )


def _open_file(name: str, path: str) -> Any:
    import av

    try:
        return av.open(path)
    except av.error.InvalidDataError as error:
        raise ImageDecodeError(
            f"{name}: this is no video that can be read, or one whose recording was not finished. Copy it again from "
            "where it comes from."
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise ImageDecodeError(f"{name}: the video cannot be opened ({_said(error)}).") from error


def _open_camera(name: str) -> Any:
    """The camera "camera:0", or "camera:NAME" where cameras have names alone (Windows)."""
    import av

    which = name.removeprefix(CAMERA)
    kind, pattern = _DEVICES.get(sys.platform, _DEVICES["linux"])
    options = {"framerate": "30"} if kind == "avfoundation" else {}  # which takes no other rate of most cameras
    try:
        if kind == "dshow" and which.isdigit():
            cameras = [each for each in av.enumerate_input_devices(kind) if "video" in each.media_types]
            which = cameras[int(which)].name
        return av.open(pattern.format(which), format=kind, options=options)
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise ImageDecodeError(
            f"{name}: the camera cannot be opened ({_said(error)}). Check that it is connected, that this program may "
            "use it, and that no other does; the first one is camera:0."
        ) from error


def _upright(frame: Any) -> Image.Image:
    """As the rotation says that the recorder stored with it."""
    image: Image.Image = frame.to_image()
    turn = _TURNS.get(round(frame.rotation / 90) * 90 % 360)
    return image if turn is None else image.transpose(turn)


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
