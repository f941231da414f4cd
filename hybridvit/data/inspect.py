"""What there is to know of one image file of a data set, found by decoding it as training would."""

import hashlib
import os
from typing import NamedTuple

from hybridvit.data.decode import Facts, decode, read_image
from hybridvit.errors import ImageDecodeError


class Inspection(NamedTuple):
    """A file, and either the facts or what is wrong with it."""

    number: int
    size_bytes: int
    digest: bytes  # of the content; empty for a bad file
    facts: Facts | None
    error: str = ""


def inspect_file(file: tuple[int, str]) -> Inspection:
    """Decode the file of that number and path to its last pixel. Raises nothing that a file can cause."""
    number, path = file
    try:
        data = read_image(path)
        facts = decode(data, name=path).facts
    except ImageDecodeError as error:
        return Inspection(number, _size(path), b"", None, str(error))
    return Inspection(number, len(data), hashlib.blake2b(data, digest_size=16).digest(), facts)


def lost_file(file: tuple[int, str]) -> Inspection:
    """What is said of a file whose decoding ended the process."""
    number, path = file
    message = f"{path}: decoding it ended the process, for want of memory or by a fault of the decoder. Replace it."
    return Inspection(number, _size(path), b"", None, message)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0
