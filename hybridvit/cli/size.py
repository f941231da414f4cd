"""Image sizes as people write them."""

import re

from hybridvit.errors import UsageError

Size = tuple[int, int]
"""Height and width in pixels."""


def parse_size(text: str) -> Size:
    """ "256" or "192x320" (height x width, pixels) as (height, width). Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not match or 0 in (size := (int(match[1]), int(match[2] or match[1]))):
        raise UsageError(
            f"--image_size is '{text}', but it must be a side or height x width in pixels: 256, or 192x320."
        )
    return size
