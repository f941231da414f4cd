"""Several files on the parts of suites, an image decoded once for all that are shown it alike; what is done is kept."""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.atomic import replacing, write_text
from hybridvit.batch import Batch
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.scan import Say, quiet
from hybridvit.errors import UsageError, plural
from hybridvit.evaluate.suites.labels import NUM_CLASSES, synsets
from hybridvit.evaluate.suites.layout import Part, nothing_decodes
from hybridvit.evaluate.suites.options import Protocol
from hybridvit.evaluate.suites.protocol import chosen_protocols, preprocessing_of
from hybridvit.evaluate.suites.suites import Suite, is_own
from hybridvit.evaluate.suites.tally import Answers, Tally
from hybridvit.models.registry import num_outputs
from hybridvit.task import Outputs

FORMAT = 1
LOGITS = "logits"
DIGITS = 20  # of the SHA-256 in the name of a record


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

    def answers(self) -> Answers:
        """Read each time from the file that keeps them, so that memory does not grow with the number of parts."""
        with np.load(self.kept_in) as arrays:
            read: Any = {name: arrays[name] for name in arrays.files}
        return Answers(**read)


def check_subject(subject: Subject, suites: Sequence[Suite]) -> None:
    """Raise UsageError for a file that cannot be asked: another task, no logits, other classes than ImageNet-1k's."""
    card = subject.card
    if card.task != "classify":
        raise UsageError(f"{subject.path} is a model of the task '{card.task}', but suites are for classifiers.")
    num_classes = num_outputs(card)
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
        asked = [
            _Asked.of(subject, part, name, folder)
            for subject in subjects
            for name in chosen_protocols(protocol, part, subject.card, subject.takes_size)
        ]
        absent = [each for each in asked if force or not each.record.is_file()]
        groups: dict[Preprocessing, list[_Asked]] = defaultdict(list)
        for each in absent:
            groups[each.preprocessing].append(each)
        for members in groups.values():
            seconds = _answer(part, members, batch_size=batch_size, workers=workers)
            say(f"{part.title}: {len(part.identities):,} images, {plural(len(members), 'file')}, {seconds:.1f} s")
        if len(absent) < len(asked):
            say(f"{part.title}: kept from before for {plural(len(asked) - len(absent), 'file')}")
        results += [each.result(part, is_new=each in absent) for each in asked]
    return results


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A file that is asked about a part."""

    subject: Subject
    protocol: str
    preprocessing: Preprocessing
    record: Path  # the file of the result

    @classmethod
    def of(cls, subject: Subject, part: Part, protocol: str, folder: Path) -> "_Asked":
        """The record's name is the hash of all that the answers depend on."""
        preprocessing = preprocessing_of(protocol, subject.card.preprocessing, part)
        key = [FORMAT, subject.digest, subject.runtime, part.title, part.listing.fingerprint, asdict(preprocessing)]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return cls(
            subject=subject, protocol=protocol, preprocessing=preprocessing, record=folder / f"{digest[:DIGITS]}.json"
        )

    @property
    def kept_in(self) -> Path:
        return self.record.with_suffix(".npz")

    def keep(self, part: Part, answers: Answers, *, num_skipped: int, seconds: float) -> None:
        with replacing(self.kept_in) as path, path.open("wb") as file:
            arrays: Any = answers.arrays()
            np.savez(file, **arrays)
        said = {
            "file": self.subject.path,
            "suite": part.suite,
            "part": part.title,
            "protocol": self.protocol,
            "num_skipped": num_skipped,
            "seconds": seconds,
            "scores": answers.scores(),
        }
        write_text(self.record, json.dumps(said) + "\n")  # the last, as the sign that the part is done

    def result(self, part: Part, *, is_new: bool) -> PartResult:
        said = json.loads(self.record.read_text(encoding="utf-8"))
        return PartResult(
            part=part,
            subject=self.subject,
            protocol=self.protocol,
            scores=said["scores"],
            num_skipped=said["num_skipped"],
            seconds=said["seconds"] if is_new else None,
            kept_in=self.kept_in,
        )


def _answer(part: Part, members: Sequence[_Asked], *, batch_size: int, workers: int) -> float:
    """Show the part to files that prepare it alike, and keep what they answer; the seconds that it took."""
    tallies = [Tally(part) for _ in members]
    loader = make_eval_loader(part.samples(members[0].preprocessing), batch_size=batch_size, workers=workers)
    began = time.perf_counter()
    try:
        for batch in loader:
            numbers = batch.samples.numpy()
            for each, tally in zip(members, tallies, strict=True):
                tally.add(_logits(each.subject, batch), numbers)
        num_skipped = loader.num_total - loader.num_used
        if not loader.num_used:
            raise nothing_decodes(part.title)
    finally:
        loader.close()
    seconds = time.perf_counter() - began
    for each, tally in zip(members, tallies, strict=True):
        each.keep(part, tally.result(), num_skipped=num_skipped, seconds=seconds)
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
