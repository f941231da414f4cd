"""The folder of a job: what it is of, which parts are there, and that one driver alone is at work."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hybridvit
from hybridvit.atomic import TEMPORARY
from hybridvit.data.scan import Say, quiet
from hybridvit.errors import UsageError, command_line, some
from hybridvit.jobs.model_files import MODEL
from hybridvit.jobs.notes import TRIES, forget_all
from hybridvit.jobs.place import CONTROL, FolderPlace, Place
from hybridvit.jobs.unit import Receipt, read_receipt
from hybridvit.jobs.worker import UNITS
from hybridvit.machine.facts import installed_version
from hybridvit.machine.lock import RunLock

FORMAT = 1
JOB, SUMMARY = f"{CONTROL}/job.json", f"{CONTROL}/summary.json"
PART = re.compile(r"part-\d{5,}-of-\d{5,}\.parquet")
_READERS = 16


@contextmanager
def held(place: Place, *, say: Say = quiet) -> Iterator[None]:
    """The place as that of one driver; what is not begun leaves nothing behind.

    Raises UsageError for a folder that holds other files, or that another driver works in.
    """
    _check_ours(place)
    if not isinstance(place, FolderPlace):
        say(f"{place} takes no lock: see to it yourself that one job at a time writes there.")
        yield
        return
    control = Path(place.root, CONTROL)
    control.mkdir(parents=True, exist_ok=True)
    lock = RunLock(control, say=say)
    try:
        yield
    finally:
        is_begun = place.has(JOB)
        lock.release()
        if not is_begun:
            for folder in (control, control.parent):
                if folder.exists() and not any(folder.iterdir()):
                    folder.rmdir()


def _check_ours(place: Place) -> None:
    names = place.names()
    others = [name for name in names if not PART.fullmatch(name) and not (name.startswith(".") and TEMPORARY in name)]
    has_parts = len(names) > len(others)
    if others or (has_parts and not place.has(JOB)):
        raise UsageError(
            f"--output is {place}, which holds files that are not of such a job: {some(others or names)}. Give a new "
            "folder."
        )


def clear(place: Place) -> None:
    """Remove all that a job has written, its record first: what is half removed is not taken for a job."""
    for name in (SUMMARY, JOB, UNITS, *place.names()):
        place.remove(name)
    for folder in (TRIES, MODEL):
        for name in place.names(folder):
            place.remove(f"{folder}/{name}")
        if isinstance(place, FolderPlace):
            shutil.rmtree(Path(place.root, folder), ignore_errors=True)


def record_of(
    *, inputs: list[str], unit: int, question: Mapping[str, Any], units: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """What job.json says: all that the answers depend on."""
    versions = {"hybridvit": hybridvit.__version__, "pyarrow": installed_version("pyarrow")}
    return {
        "format": FORMAT,
        "inputs": inputs,
        "unit": unit,
        "question": dict(question),
        "units": dict(units),
        "model": dict(model),
        "versions": versions,
    }


def begin(place: Place, record: dict[str, Any], listed: Path) -> None:
    """Write the list and the record of a new job, or compare with those of the one that is there.

    Raises UsageError with the differences of another job.
    """
    if place.has(JOB):
        before = json.loads(place.read(JOB))
        if before.get("format") != FORMAT:
            raise UsageError(f"{place} is a job of another version of hybridvit. Finish it with that, or --overwrite.")
        if differences := _differences(before, record):
            raise UsageError(
                f"{place} has a job that differs in {'; '.join(differences)}. Repeat its command, give another "
                "--output, or begin anew with --overwrite."
            )
        return
    place.write(UNITS, listed.read_bytes())
    place.write(JOB, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if before["model"]["sha256"] != now["model"]["sha256"]:
        found.append(f"the model ({before['model']['file']}, SHA-256 {before['model']['sha256'][:12]}...)")
    options = {"unit": (before["unit"], now["unit"])} | {
        name: (before["question"].get(name), value) for name, value in now["question"].items()
    }
    found += [f"--{name} (was {was})" for name, (was, value) in options.items() if was != value]
    if before["inputs"] != now["inputs"]:
        found.append(f"its inputs (were {command_line(*before['inputs'][:5])})")
    elif before["units"] != now["units"] and not found:
        was, value = before["units"]["num_images"], now["units"]["num_images"]
        found.append(f"the images that lie there: {was:,} were listed, now {value:,}" + (" others" * (was == value)))
    return found


def receipts_there(place: Place) -> list[Receipt]:
    """The receipts of the parts that are there, from these themselves."""
    parts = [name for name in place.names() if PART.fullmatch(name)]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda part: read_receipt(place, part), parts))


def finish(place: Place, summary: Mapping[str, Any]) -> None:
    """Remove what killed writers left, and write the summary, last of all."""
    for name in place.names():
        if name.startswith(".") and TEMPORARY in name:
            place.remove(name)
    forget_all(place)
    place.write(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())


def finished(place: Place) -> dict[str, Any] | None:
    """The summary of a job that is done."""
    return json.loads(place.read(SUMMARY)) if place.has(SUMMARY) else None
