"""`hybridvit check-data`: is this folder of images fit to train on?"""

import sys
import time
from collections.abc import Callable
from json import dumps
from pathlib import Path

from hybridvit.cli.output import check_outputs
from hybridvit.cli.progress import status_line
from hybridvit.errors import DatasetError, UsageError

LINE_EVERY_SECONDS = 10.0


def check_data(root: str, *, workers: int | None = None, json: Path | None = None) -> int:
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
    from hybridvit.atomic import write_text
    from hybridvit.data.check import check_folder
    from hybridvit.machine.facts import usable_cores

    if workers is not None and workers < 0:
        raise UsageError(f"--workers is {workers}, but it must be at least 0 (0: this process decodes).")
    check_outputs(json)
    workers = usable_cores() if workers is None else workers
    with status_line(in_logs=True) as show:
        report = check_folder(root, workers=workers, on_progress=_reporter(show))
    if json is not None:
        write_text(json, dumps(report.to_dict(), indent=1) + "\n")
    print(report.text())
    return 0 if report.is_usable else DatasetError.exit_code


def _reporter(show: Callable[[str], None]) -> Callable[[int, int, int], None]:
    """Tells how many images are decoded: five times a second in a terminal, every ten seconds elsewhere."""
    every_s = 0.2 if sys.stderr.isatty() else LINE_EVERY_SECONDS
    began = last = time.monotonic()

    def report(done: int, total: int, bad: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s:
            return
        last = now
        speed = done / (now - began)
        left = (total - done) / speed
        show(f"{done:,} of {total:,} images, {bad:,} bad, {speed:,.0f} images/s, {left / 60:.0f} min left")

    return report
