"""Notes in the job's own folder on units that are being tried.

How often a unit was tried is so known to every machine and outlives each of them, and the driver sees who is alive. A
job that goes on begins without notes.
"""

import json
import time
from contextlib import suppress
from typing import NamedTuple

from hybridvit.errors import SourceFault
from hybridvit.jobs.place import CONTROL, Place
from hybridvit.jobs.unit import this_worker
from hybridvit.jobs.units import Unit

TRIES = f"{CONTROL}/tries"
_NOTE_EVERY_S = 5.0


class Note:
    """What a try leaves as long as it goes on: `<part>.<try>`, with who it is and how far."""

    def __init__(self, place: Place, unit: Unit, number: int) -> None:
        self._place, self._name = place, f"{TRIES}/{unit.part}.{number}"
        self._unit, self._next = unit.number, 0.0
        self(0)

    def __call__(self, done: int) -> None:
        """Tell how many pictures are done, not more often than every few seconds."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _NOTE_EVERY_S
            said = {"unit": self._unit, "worker": this_worker(), "done": done, "at": time.time()}
            self._place.write(self._name, json.dumps(said).encode())


class Tried(NamedTuple):
    """The last note on a unit."""

    unit: int
    worker: str
    done: int
    at: float  # by the clock of the machine that wrote it: is compared with nothing but the one before


def last_notes(place: Place) -> dict[str, Tried]:
    """The last note on each unit that is not done, by its part."""
    found: dict[str, Tried] = {}
    for name in place.names(TRIES):  # sorted: the last try comes last
        with suppress(SourceFault, ValueError):  # the unit was done just now
            found[name.rpartition(".")[0]] = Tried(**json.loads(place.read(f"{TRIES}/{name}")))
    return found


def count_tries(place: Place, unit: Unit) -> int:
    """How often a unit was begun and not done."""
    return sum(name.rpartition(".")[0] == unit.part for name in place.names(TRIES))


def forget_all(place: Place) -> None:
    """Remove the notes of an earlier start."""
    for name in place.names(TRIES):
        place.remove(f"{TRIES}/{name}")


def forget(place: Place, unit: Unit) -> None:
    """Remove the notes on a unit that is done."""
    for name in place.names(TRIES):
        if name.rpartition(".")[0] == unit.part:
            place.remove(f"{TRIES}/{name}")
