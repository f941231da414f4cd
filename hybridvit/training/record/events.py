"""What happens to a run besides training: resumes, warnings, files left out. In events.jsonl, over all its sessions.

Unlike the metrics, nothing is taken back when a run goes on from an earlier checkpoint: it did happen.
"""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch.distributed

Kind = Literal["start", "resume", "end", "warning"]


class Event(NamedTuple):
    """One thing that happened."""

    time: str  # ISO, UTC
    step: int  # optimizer steps done by then
    kind: Kind
    text: str


class Events(logging.Handler):
    """Collects events, and this library's warnings, on every process; rank 0 writes them.

    Use as a context: warnings are taken up inside it. `gather` brings the other processes' events to rank 0.
    """

    def __init__(self, path: Path, *, leads: bool, step: int = 0) -> None:
        super().__init__(logging.WARNING)
        self.step = step  # optimizer steps done by now
        self._path, self._leads = path, leads
        self._waiting: list[Event] = []
        self.known = _read(path) if leads else []
        is_torn = leads and path.is_file() and not path.read_bytes().endswith(b"\n")
        self._first = "\n" if is_torn else ""  # ends the line that a kill cut short

    def __enter__(self) -> Self:
        logging.getLogger("hybridvit").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("hybridvit").removeHandler(self)

    def add(self, text: str, kind: Kind = "warning") -> None:
        """Something happened now."""
        self._waiting.append(Event(datetime.now(UTC).isoformat(timespec="seconds"), self.step, kind, text))
        if self._leads:
            self._write()

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.getMessage())
        if logging.lastResort is not None and not logging.getLogger().handlers:
            logging.lastResort.handle(record)  # which Python leaves out once there is any handler, as there is now

    def gather(self) -> None:
        """Every process calls it at the same moment."""
        if not torch.distributed.is_initialized():
            return
        by_rank: list[list[Event]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(by_rank, self._waiting)
        self._waiting = [event for events in by_rank for event in events] if self._leads else []
        self._write()

    def _write(self) -> None:
        if not (self._leads and self._waiting):
            return
        new, self._waiting = self._waiting, []
        self.known += new
        try:
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(self._first)
                self._first = ""
                file.writelines(json.dumps(event._asdict(), ensure_ascii=False) + "\n" for event in new)
        except OSError:  # a full disk: the events stay in the report, and the checkpoint will say it
            return


def _read(path: Path) -> list[Event]:
    """The events of earlier sessions; a line that a kill cut short is passed over."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            events.append(Event(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return events
