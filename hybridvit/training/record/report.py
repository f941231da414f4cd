"""Keeps report.html of a run up to date."""

import logging
from collections.abc import Callable
from pathlib import Path

from hybridvit.atomic import write_text
from hybridvit.report.content import Report
from hybridvit.report.html import render
from hybridvit.report.run import RunRecord, run_report
from hybridvit.training.record.logbook import Logger, Row

log = logging.getLogger(__name__)


class RunReport(Logger):
    """Writes the page at the start, at every validation and whenever `write` is called, atomically.

    `record` gives what is known by now. A page that cannot be made or written is a warning, once, and never the end
    of the run.
    """

    def __init__(self, path: Path, record: Callable[[], RunRecord]) -> None:
        self._path, self._record = path, record
        self._has_warned = False

    def step(self, row: Row) -> None:
        pass

    def validated(self, row: Row) -> None:
        self.write()

    def close(self) -> None:
        pass

    def write(self) -> Report | None:
        """Make the page anew; what it says, or None if that failed."""
        try:
            report = run_report(self._record())
            write_text(self._path, render(report))
        except Exception as error:  # whatever it is, days of training are worth more than a page about them
            if not self._has_warned:
                log.warning("%s could not be written (%s: %s).", self._path, type(error).__name__, error)
                self._has_warned = True
            return None
        return report
