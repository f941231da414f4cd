"""A job from its command to its summary. The same call goes on where an earlier one ended."""

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hybridvit.child import ChildDied, in_child
from hybridvit.data.scan import Say, quiet
from hybridvit.data.shards.remote import is_url
from hybridvit.errors import DatasetError, ProcessLost, UsageError, plural, some
from hybridvit.export.targets import exporter_of
from hybridvit.jobs.engine import Engine
from hybridvit.jobs.job import begin, clear, finish, finished, held, receipts_there, record_of
from hybridvit.jobs.local import LocalEngine
from hybridvit.jobs.model_files import local_model
from hybridvit.jobs.notes import Tried, forget_all, last_notes
from hybridvit.jobs.options import Resources, Wanted
from hybridvit.jobs.place import Place, open_place
from hybridvit.jobs.survey import Survey, Surveyor
from hybridvit.jobs.tally import Tally, Watch, ignore
from hybridvit.jobs.worker import Work
from hybridvit.loading import is_exported
from hybridvit.machine.facts import usable_cores

PATIENCE_S = 600.0
_LOOKS_EVERY_S = {True: 0.5, False: 10.0}  # at the notes, of a folder and behind a URL


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job came to."""

    summary: dict[str, Any]
    is_new: bool  # False: all was done before
    allow_bad: float

    @property
    def has_too_many_bad(self) -> bool:
        """Whether more images are bad than is allowed."""
        return self.summary["bad"] > self.allow_bad * self.summary["rows"]


def run_job(
    model: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    wanted: Wanted | None = None,
    resources: Resources | None = None,
    watch: Watch = ignore,
    say: Say = quiet,
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Answer to all images of the inputs, as Parquet files in `output`, each image exactly once.

    Raises UsageError for options that do not fit, or not the job that is there; DatasetError for inputs that match
    nothing, and, after all else is done, for tar or Parquet files that could not be read; CheckpointError for the
    model; DiskFull; ProcessLost where no worker has given a sign of life for `patience_s`. Done parts stay.
    """
    wanted, resources = wanted or Wanted(), resources or Resources()
    _require("pyarrow", "parquet")
    if resources.engine == "ray":
        _require("ray", "ray")
    words = [os.fspath(each) for each in inputs]
    _check_gpus(os.fspath(model), resources)
    place = open_place(os.fspath(output))
    with held(place, say=say), tempfile.TemporaryDirectory(prefix="hybridvit-") as folder:
        path, listed = local_model(os.fspath(model), Path(folder)), Path(folder, "units.parquet")
        survey = _survey(path, words, wanted, resources, listed)
        for line in survey.said:
            say(line)
        record = record_of(
            inputs=[word if is_url(word) else os.path.abspath(word) for word in words],
            unit=wanted.unit,
            question=asdict(wanted.question),
            units=survey.listed._asdict(),
            model={"file": path.name, "sha256": survey.sha256, "card": survey.card},
        )
        if wanted.overwrite:  # only now: a mistyped model or input loses nothing
            clear(place)
        begin(place, record, listed)
        if (before := finished(place)) is not None:
            return Outcome(summary=before, is_new=False, allow_bad=wanted.allow_bad)
        work = _work(path, survey, wanted, resources, place)
        summary = _carried_out(place, survey, _engine(work, resources, place), watch, patience_s)
        return Outcome(summary=summary, is_new=True, allow_bad=wanted.allow_bad)


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise UsageError(f'`hybridvit batch` needs {package} for that. Run: pip install "hybridvit[{extra}]".')


def _check_gpus(model: str, resources: Resources) -> None:
    if not resources.gpus_per_worker:
        return
    if is_exported(model):
        raise UsageError(
            f"--gpus_per_worker is {resources.gpus_per_worker:g}, but {model} is an exported file, which computes on "
            "the CPU. Leave it out, or give the checkpoint."
        )
    if resources.engine == "local":
        import torch

        if not torch.cuda.is_available():
            raise UsageError(
                f"--gpus_per_worker is {resources.gpus_per_worker:g}, but this machine has no GPU that PyTorch can "
                "use. Leave it out to compute on processors."
            )


def _is_like_workers(resources: Resources) -> bool:
    """Whether what is measured in the survey holds for the workers: not for GPUs, and not for other machines."""
    return resources.engine == "local" and not resources.gpus_per_worker


def _survey(model: Path, words: Sequence[str], wanted: Wanted, resources: Resources, target: Path) -> Survey:
    """In a process of its own: a long list and a model are no load on this one."""
    threads = _threads(model, resources)
    surveyor = Surveyor(
        words=words,
        unit_size=wanted.unit,
        folder=os.getcwd(),
        target=target,
        model=model,
        question=wanted.question,
        threads=None if threads is None else min(threads, usable_cores()),
        batch=resources.batch if resources.batch != "auto" else None if _is_like_workers(resources) else 1,
    )
    try:
        return in_child(surveyor)
    except ChildDied as error:
        raise ProcessLost(f"The process that was to look at the inputs and open {model} {error}.") from error


def _work(model: Path, survey: Survey, wanted: Wanted, resources: Resources, place: Place) -> Work:
    measured = survey.batch if _is_like_workers(resources) else None
    return Work(
        place=place.root,
        folder=os.getcwd(),
        model=str(model),
        sha256=survey.sha256,
        question=wanted.question,
        device="cuda" if resources.gpus_per_worker else "cpu",
        threads=_threads(model, resources),
        batch=measured if resources.batch == "auto" else resources.batch,
    )


def _threads(model: Path, resources: Resources) -> int | None:
    """None for a runtime that counts its own."""
    return resources.cpus_per_worker if not is_exported(model) or exporter_of(model).takes_threads else None


def _engine(work: Work, resources: Resources, place: Place) -> Engine:
    if resources.engine == "ray":
        from hybridvit.jobs.cluster import RayEngine

        return RayEngine(work, place, resources)
    most = resources.pool[1]
    if most is None:
        most = usable_cores() // resources.cpus_per_worker
        if resources.gpus_per_worker:
            import torch

            most = max(1, int(torch.cuda.device_count() / resources.gpus_per_worker))
    return LocalEngine(work, most, gpus_each=resources.gpus_per_worker)


def _carried_out(place: Place, survey: Survey, engine: Engine, watch: Watch, patience_s: float) -> dict[str, Any]:
    before = receipts_there(place)
    missing = sorted(set(range(survey.listed.num_units)).difference(receipt.unit for receipt in before))
    tally = Tally(survey.listed.num_images, before)
    failed: list[DatasetError] = []
    forget_all(place)
    guard = _Guard(place, patience_s)
    with closing(engine.receipts(missing)) as receipts:
        for receipt in receipts:
            if isinstance(receipt, DatasetError):
                failed.append(receipt)
            elif receipt is not None:
                tally.take(receipt)
            watch(tally.standing(guard.notes(moved=receipt is not None)))
    if failed:
        raise DatasetError(
            f"{plural(len(failed), 'unit')} of {survey.listed.num_units:,} could not be read; all others are done, and "
            f"the same command tries these again. {failed[0]}"
        )
    summary = tally.summary()
    finish(place, summary)
    return summary


class _Guard:
    """Sees to it that a job in which nothing happens any more ends."""

    def __init__(self, place: Place, patience_s: float) -> None:
        self._place, self._patience_s = place, patience_s
        self._every_s = min(_LOOKS_EVERY_S[not is_url(place.root)], patience_s / 4)
        self._last_sign = time.monotonic()
        self._looked = 0.0
        self._notes: dict[str, Tried] = {}

    def notes(self, *, moved: bool) -> dict[str, Tried]:
        """What workers say. Raises ProcessLost where none has said anything for too long."""
        now = time.monotonic()
        if now - self._looked >= self._every_s:
            found = last_notes(self._place)
            moved = moved or found != self._notes
            self._looked, self._notes = now, found
        if moved:
            self._last_sign = now
        elif now - self._last_sign > self._patience_s:
            stuck = [f"{part} on {note.worker}" for part, note in self._notes.items()]
            raise ProcessLost(
                f"No worker has given a sign of life for {self._patience_s:g} s; at work were: "
                f"{some(stuck) or 'none'}. Done parts stay: look after these machines, and repeat the command."
            )
        return self._notes
