"""Every error a user can cause, each with the exit code of the command line.

All derive from HybridViTError, which is a ValueError: a caller needs one `except`. A message is one
paragraph that names the value, the rule it broke and the fix.
"""

import difflib
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence

NUM_NEAREST, ALIKE = 3, 0.7  # names in a hint, and how like a name has to be, as difflib has it
LONGEST = 300  # characters of another exception's text in a message of ours


class HybridViTError(ValueError):
    """The base of all errors of this library. `exit_code` is what the command line returns."""

    exit_code = 2


class UsageError(HybridViTError):
    """An unknown name or option, or a value outside its range."""

    exit_code = 2


class UnknownOptionError(UsageError, TypeError):
    """An option that a model does not have; a TypeError too, as Python's own for an unknown argument."""


class DatasetError(HybridViTError):
    """A data set that cannot be used as it stands: no images, no classes, other classes than trained on."""

    exit_code = 3


class ImageDecodeError(DatasetError):
    """A file that cannot be decoded to the right pixels."""


class SourceFault(DatasetError):
    """The place that images are in cannot be read; no fault of a single image, and never skipped."""


class NonFiniteError(HybridViTError):
    """A loss or gradient that is NaN or infinite."""

    exit_code = 4


class CheckpointError(HybridViTError):
    """Weights that are missing, damaged, unsafe or for another architecture."""

    exit_code = 5


class MissingPart(CheckpointError):
    """What a model needs besides its weights is not on this machine, or is another than it was trained with."""


class FoldError(HybridViTError):
    """A model that cannot be folded exactly."""

    exit_code = 5


class ExportError(HybridViTError):
    """An exported file whose answers differ from the model's."""

    exit_code = 5


class HubError(HybridViTError):
    """The Hugging Face hub does not answer, or refuses what is sent to it."""

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


def nearest(name: str, known: Iterable[str], *, lead: str = "Nearest:", otherwise: str = "") -> str:
    """The known names spelled most like `name`, or like it after a dot, after `lead`: a sentence without its full stop.

    Where none is, nothing is guessed: it is `otherwise`, or tells the first names that there are.
    """
    known, ends = list(known), dict[str, list[str]]()
    for each in known:
        for end in dict.fromkeys((each, each.rpartition(".")[2])):
            ends.setdefault(end, []).append(each)
    close = difflib.get_close_matches(name, ends, n=NUM_NEAREST, cutoff=ALIKE)
    alike = list(dict.fromkeys(each for end in close for each in ends[end]))[:NUM_NEAREST]
    if alike:
        return f"{lead} {some(alike, quoted=True)}"
    return otherwise or f"There {'is' if len(known) == 1 else 'are'} {some(known, quoted=True) or 'none'}"


def command_line(*words: object) -> str:
    """Words as one line that runs when it is pasted into a shell: those with spaces and the like are quoted."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)


def plural(number: int, noun: str) -> str:
    """The number with its noun."""
    ending = "" if number == 1 else "es" if noun.endswith("ss") else "s"
    return f"{number:,} {noun}{ending}"


def some(names: Sequence[str], most: int = 5, *, quoted: bool = False) -> str:
    """The first `most` of `names`, joined, and how many more there are, for an error message."""
    shown = ", ".join(f"'{name}'" if quoted else name for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, without a full stop, for a message of ours; its type if it has none."""
    return _told(error, str(error).strip().split("\n")[0])


def one_line(error: BaseException) -> str:
    """As `first_line`, of the whole text, its lines joined."""
    return _told(error, " ".join(str(error).split()))


def _told(error: BaseException, text: str) -> str:
    """The start of the text, fit for a line of ours: what a file holds may be long, and may steer a terminal."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])
    return shown.rstrip(". ") or type(error).__name__
