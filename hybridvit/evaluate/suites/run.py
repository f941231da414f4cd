"""Several files on the parts of suites, an image decoded once for all that are shown it alike; what is done is kept."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.atomic import replacing, write_text
from hybridvit.batch import Batch
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.scan import Say, quiet
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.suites.labels import NUM_CLASSES, synsets
from hybridvit.evaluate.suites.layout import Part
from hybridvit.evaluate.suites.options import Protocol
from hybridvit.evaluate.suites.protocol import chosen_protocol, preprocessing_of
from hybridvit.evaluate.suites.suites import Suite, is_own
from hybridvit.evaluate.suites.tally import Answers, Tally
from hybridvit.task import Outputs

FORMAT = 1
LOGITS = "logits"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file that answers."""

    path: str
    digest: str  # of its content
    card: ModelCard
    runtime: str
    answer: Callable[[Batch], Outputs]
    takes_size: Callable[[tuple[int, int]], bool]


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What one file answered to one part."""

    part: Part
    subject: Subject
    protocol: str
    scores: dict[str, Any]
    num_skipped: int
    seconds: float | None  # of the pass that it was answered in; None: kept from before
    kept_in: Path

    @cached_property
    def answers(self) -> Answers:
        """Read from the file that keeps them, so that memory does not grow with the number of parts."""
        with np.load(self.kept_in) as arrays:
            read: Any = {name: arrays[name] for name in arrays.files}
        return Answers(**read)


def check_subject(subject: Subject, suites: Sequence[Suite]) -> None:
    """Raise UsageError for a file that cannot be asked: another task, no logits, other classes than ImageNet-1k's."""
    card = subject.card
    if card.task != "classify":
        raise UsageError(f"{subject.path} is a model of the task '{card.task}', but suites are for classifiers.")
    num_classes = card.options.get("num_classes", NUM_CLASSES)
    speaks = card.class_names == synsets() if card.class_names else num_classes == NUM_CLASSES
    official = [suite.name for suite in suites if not is_own(suite)]
    if official and not speaks:
        names = f", such as '{card.class_names[0]}'" if card.class_names else ""
        raise UsageError(
            f"{subject.path} answers with {num_classes} classes{names}, but the suites {', '.join(official)} are of "
            "the 1,000 classes of ImageNet-1k. Give a folder of its own classes: --suites NAME=FOLDER."
        )


def evaluate_parts(
    subjects: Sequence[Subject],
    parts: Iterable[Part],
    folder: Path,
    *,
    protocol: Protocol = "auto",
    batch_size: int = 32,
    workers: int = 0,
    force: bool = False,
    say: Say = quiet,
) -> list[PartResult]:
    """The results of every file on every part, parts first; those that `folder` has already are not computed again.

    One record per file and part is written atomically when the part is done, so a run that was stopped goes on there.
    `force` computes all anew. Raises as `hybridvit.evaluate.run.evaluate`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for part in parts:
        groups: dict[Preprocessing, list[tuple[Subject, str]]] = defaultdict(list)
        kept = 0
        for subject in subjects:
            name = chosen_protocol(protocol, part, subject.takes_size)
            preprocessing = preprocessing_of(name, subject.card.preprocessing, part)
            if not force and _record(folder, subject, part, preprocessing).is_file():
                kept += 1
            else:
                groups[preprocessing].append((subject, name))
        computed = set[str]()
        for preprocessing, members in groups.items():
            seconds = _answer(part, preprocessing, members, folder, batch_size=batch_size, workers=workers)
            computed.update(subject.digest for subject, _ in members)
            say(f"{part.title}: {len(part.identities):,} images, {len(members)} files, {seconds:.1f} s")
        if kept:
            say(f"{part.title}: kept from before for {kept} files")
        results += [_read(folder, subject, part, protocol, subject.digest in computed) for subject in subjects]
    return results


def _answer(
    part: Part,
    preprocessing: Preprocessing,
    members: Sequence[tuple[Subject, str]],
    folder: Path,
    *,
    batch_size: int,
    workers: int,
) -> float:
    import time

    tallies = [Tally(part) for _ in members]
    loader = make_eval_loader(part.samples(preprocessing), batch_size=batch_size, workers=workers)
    began = time.perf_counter()
    try:
        for batch in loader:
            numbers = batch.samples.numpy()
            for (subject, _), tally in zip(members, tallies, strict=True):
                tally.add(_logits(subject, batch), numbers)
        num_skipped = loader.num_total - loader.num_used
        if not loader.num_used:
            raise DatasetError(f"No image of {part.title} can be decoded. Unpack the archive anew.")
    finally:
        loader.close()
    seconds = time.perf_counter() - began
    for (subject, name), tally in zip(members, tallies, strict=True):
        facts = {"protocol": name, "num_skipped": num_skipped, "seconds": seconds}
        _keep(_record(folder, subject, part, preprocessing), tally.result(), part, subject, facts)
    return seconds


def _logits(subject: Subject, batch: Batch) -> np.ndarray:
    outputs = subject.answer(batch)
    if LOGITS not in outputs:
        raise UsageError(
            f"{subject.path} gives {', '.join(outputs)}, but suites need logits: classes are restricted before the "
            "most probable is taken. Export it again without --returns."
        )
    logits = outputs[LOGITS]
    return logits if isinstance(logits, np.ndarray) else logits.float().cpu().numpy()


def _record(folder: Path, subject: Subject, part: Part, preprocessing: Preprocessing) -> Path:
    """The file of a result: its name is the hash of all that the answers depend on."""
    key = [FORMAT, subject.digest, subject.runtime, part.title, part.fingerprint, asdict(preprocessing)]
    return folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]}.json"


def _keep(record: Path, answers: Answers, part: Part, subject: Subject, facts: dict[str, Any]) -> None:
    with replacing(record.with_suffix(".npz")) as path, path.open("wb") as file:
        arrays: Any = answers.arrays()
        np.savez(file, **arrays)
    said = {"file": subject.path, "suite": part.suite, "part": part.title} | facts | {"scores": answers.scores()}
    write_text(record, json.dumps(said) + "\n")  # the last, as the sign that the part is done


def _read(folder: Path, subject: Subject, part: Part, protocol: Protocol, is_new: bool) -> PartResult:
    name = chosen_protocol(protocol, part, subject.takes_size)
    record = _record(folder, subject, part, preprocessing_of(name, subject.card.preprocessing, part))
    said = json.loads(record.read_text(encoding="utf-8"))
    return PartResult(
        part=part,
        subject=subject,
        protocol=name,
        scores=said["scores"],
        num_skipped=said["num_skipped"],
        seconds=said["seconds"] if is_new else None,
        kept_in=record.with_suffix(".npz"),
    )
