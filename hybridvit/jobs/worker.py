"""A process that does units: each three times at most as a whole, then its pictures one by one in another process."""

import tempfile
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hybridvit.child import Child, ChildDied
from hybridvit.errors import ProcessLost
from hybridvit.jobs.answerer import Answerer, Question, bad_row
from hybridvit.jobs.model_files import fetched
from hybridvit.jobs.notes import Note, count_tries, forget
from hybridvit.jobs.pictures import pictures
from hybridvit.jobs.place import CONTROL, Place, open_place
from hybridvit.jobs.unit import Receipt, infer_unit, read_receipt, write_part
from hybridvit.jobs.units import Unit, read_units
from hybridvit.loading import Device

UNITS = f"{CONTROL}/units.parquet"
MOST_TRIES = 3
_MORE_TRIES = 3  # picture by picture: machines can be lost then, too
DIED = "the process died on this image"
_MOST_DEAD = 32  # pictures of a unit: with more it is no picture's fault


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker has to know besides the number of a unit; small, and the same for all of a job."""

    place: str
    folder: str  # where relative paths of pictures begin
    model: str  # a path; with `copied` the name of the one in the job's own folder
    copied: tuple[str, ...] = ()  # its files
    sha256: str
    question: Question
    device: Device = "cpu"
    threads: int | None = None
    batch: int | None = None  # None: the best, measured


class Worker:
    """A model, opened, that does units of a job. Raises as Answerer, and SourceFault for a job that is out of reach."""

    def __init__(self, work: Work) -> None:
        self.place = open_place(work.place)
        if work.copied:
            self._kept = tempfile.TemporaryDirectory(prefix="hybridvit-")
            model = fetched(list(work.copied), work.model, self.place, Path(self._kept.name))
            work = replace(work, model=str(model), copied=())
        self.answerer = Answerer(
            work.model,
            work.question,
            sha256=work.sha256,
            device=work.device,
            threads=work.threads,
            batch=work.batch,
        )
        self._work = work
        self._list = read_list(self.place)

    def unit(self, number: int) -> Unit:
        """A unit of the list."""
        return next(read_units(self._list, [number]))

    def do(self, number: int) -> Receipt:
        """Do a unit, or find that it was done. Raises as `infer_unit`; ProcessLost where it is no picture's fault."""
        unit = self.unit(number)
        if self.place.has(unit.part):
            forget(self.place, unit)
            return read_receipt(self.place, unit.part)
        tries = count_tries(self.place, unit)
        if tries > MOST_TRIES + _MORE_TRIES:
            raise ProcessLost(
                f"Unit {number} was begun {tries} times, and each time its process died, though pictures were asked "
                "for one by one. Look into the memory of the machines and into the log of the system."
            )
        note = Note(self.place, unit, tries + 1)
        if tries < MOST_TRIES:
            receipt = infer_unit(unit, self.answerer, self.place, folder=self._work.folder, count=note)
        else:
            with closing(rows_alone(self._work, number)) as rows:
                receipt = write_part(unit, rows, self.answerer.schema, self.place, count=note)
        forget(self.place, unit)
        return receipt


def read_list(place: Place) -> Any:
    """The list of a job, opened."""
    from pyarrow.parquet import ParquetFile

    return ParquetFile(place.open(UNITS))


def rows_alone(work: Work, number: int) -> Generator[dict[str, Any], None, None]:
    """The rows of a unit from a process of its own, which may die: the picture that it died on is a row too.

    Raises ProcessLost for one that dies before its first picture, or on too many.
    """
    done, dead = 0, 0
    while True:
        child = Child(partial(_answer_alone, work, number, done))
        name = None
        try:
            while (said := child.receive()) is not None:
                if isinstance(said, str):
                    name = said
                    continue
                name, done = None, done + 1
                yield said
            return
        except ChildDied as error:
            dead += 1
            if name is None or dead > _MOST_DEAD:
                raise ProcessLost(f"A process that was to answer pictures one by one {error}.") from error
            done += 1
            yield bad_row(name, DIED)
        finally:
            child.end()


def _answer_alone(work: Work, number: int, first: int, pipe: Connection) -> None:
    """Say the name of each picture before it is answered, then its row; None at the end."""
    worker = Worker(replace(work, batch=1))
    with closing(pictures(worker.unit(number), work.folder)) as shown:
        for each in islice(shown, first, None):
            pipe.send(str(each.source))
            (row,) = worker.answerer.rows(one for one in [each])
            pipe.send(row)
    pipe.send(None)
