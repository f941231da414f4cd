"""`hybridvit check-data`: is this folder of images fit to train on?"""

import sys
import time
from json import dumps
from pathlib import Path

from hybridvit.errors import DatasetError, UsageError

LINE_EVERY_SECONDS = 10.0


def check_data(root: str, *, workers: int | None = None, json: str | None = None) -> int:
    """Decode every image of a data set and report what a training would trip over.

    The folder holds one folder per class, or splits such as train/ and val/ that do. Reported are bad files by cause,
    empty and unknown classes, equal files across classes and splits, sizes and colours. The exit code is 3 if there are
    errors; warnings and notes leave it at 0.

    Examples:
      hybridvit check-data photos
      hybridvit check-data imagenet --workers 16 --json imagenet-check.json

    Args:
        root: folder of the data set.
        workers: processes that decode; 0 decodes in this one, by default one per core.
        json: file to write the whole report to, with all bad files and groups of equal ones.
    """
    from hybridvit.atomic import check_place, write_text
    from hybridvit.data.check import check_folder
    from hybridvit.machine.facts import usable_cores

    if workers is not None and workers < 0:
        raise UsageError(f"--workers is {workers}, but it must be at least 0 (0: this process decodes).")
    if json is not None:
        check_place(Path(json))
    progress = _Progress()
    report = check_folder(root, workers=usable_cores() if workers is None else workers, on_progress=progress)
    progress.end()
    if json is not None:
        write_text(Path(json), dumps(report.to_dict(), indent=1) + "\n")
    print(report.text())
    return 0 if report.is_usable else DatasetError.exit_code


class _Progress:
    """One line on stderr: drawn again in a terminal, added every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._in_terminal = sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._drawn = False

    def __call__(self, done: int, total: int, bad: int) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._in_terminal else LINE_EVERY_SECONDS):
            return
        self._last, self._drawn = now, True
        speed = done / (now - self._began)
        left = (total - done) / speed
        line = f"{done:,} of {total:,} images, {bad:,} bad, {speed:,.0f} images/s, {left / 60:.0f} min left"
        if self._in_terminal:
            print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line, for the report to stand in its place."""
        if self._drawn and self._in_terminal:
            print("\r" + " " * 78 + "\r", end="", file=sys.stderr, flush=True)
