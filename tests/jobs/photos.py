"""Pictures of which some are bad; what others do when they are opened is in programs/opening."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, **counts: int) -> Path:
    """So many pictures of each start of a name in a new folder: write_photos(folder, ok=20, bad=1)."""
    folder.mkdir()
    for start, count in counts.items():
        for number in range(count):
            path = folder / f"{start}-{number:04}.png"
            if start == "bad":
                path.write_bytes(b"no picture")
                continue
            pixels = np.random.default_rng(number).integers(0, 256, (30 + number % 7, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return folder
