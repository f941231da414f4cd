"""Every error a user can cause, each with the exit code of the command line.

All derive from HybridViTError, which is a ValueError: a caller needs one `except`. A message is one
paragraph that names the value, the rule it broke and the fix.
"""

import difflib
from collections.abc import Iterable


class HybridViTError(ValueError):
    """The base of all errors of this library. `exit_code` is what the command line returns."""

    exit_code = 2


class UsageError(HybridViTError):
    """An unknown name or option, or a value outside its range."""

    exit_code = 2


class DatasetError(HybridViTError):
    """A data set that cannot be used as it stands: no images, no classes, other classes than trained on."""

    exit_code = 3


class ImageDecodeError(DatasetError):
    """A file that cannot be decoded to the right pixels."""


class NonFiniteError(HybridViTError):
    """A loss or gradient that is NaN or infinite."""

    exit_code = 4


class CheckpointError(HybridViTError):
    """Weights that are missing, damaged, unsafe or for another architecture."""

    exit_code = 5


class FoldError(HybridViTError):
    """A model that cannot be folded exactly."""

    exit_code = 5


class ExportError(HybridViTError):
    """An exported file whose answers differ from the model's."""

    exit_code = 5


class OutOfMemory(HybridViTError):
    """The device's memory is too small for the batch."""

    exit_code = 6


class DiskFull(HybridViTError):
    """A file could not be written whole and safely to disk."""

    exit_code = 7


class ProcessLost(HybridViTError):
    """Another process of the same run is gone, stuck, or ended with an error."""

    exit_code = 8


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The known names most like `name`, quoted and joined, for an error message; all if none is alike."""
    known = list(known)
    alike = difflib.get_close_matches(name, known, n=count, cutoff=0.4) or known
    return ", ".join(f"'{item}'" for item in alike)
