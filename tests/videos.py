"""Videos that tests make."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (64, 48)


def frame_of(level: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Grey, with the left half red."""
    pixels = np.full((size[1], size[0], 3), level, np.uint8)
    pixels[:, : size[0] // 2] = (255, 0, 0)
    return Image.fromarray(pixels)


def write_video(
    path: Path,
    levels: Sequence[int],
    *,
    rate: int = 10,
    size: tuple[int, int] = SIZE,
    rotation: int = 0,
    index_first: bool = False,
    times: Sequence[int] | None = None,
) -> Path:
    """One frame for each level of grey; `times` in frames, where they come unevenly."""
    options = {"movflags": "faststart"} if index_first else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for place, level in enumerate(levels):
            frame = av.VideoFrame.from_image(frame_of(level, size))
            if times is not None:
                frame.pts = times[place]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def truncated(path: Path, share: float) -> Path:
    """The file without its end."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def frames_in(path: Path) -> list[tuple[float, np.ndarray]]:
    """Seconds and pixels of all frames."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
