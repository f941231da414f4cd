"""What is known of a job before it begins: its list, and that the model answers what is asked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridvit.jobs.answerer import Answerer, Question
from hybridvit.jobs.model_files import model_digest
from hybridvit.jobs.units import Listed, write_list


@dataclass(frozen=True, kw_only=True)
class Surveyor:
    """Looks at inputs and model, in a process of its own: a long list and a model are no load on the driver."""

    words: Sequence[str]
    unit_size: int
    folder: str
    target: Path  # of the list
    model: Path
    question: Question
    threads: int | None
    batch: int | None  # None: to be measured

    def __call__(self) -> "Survey":
        """Raises as `write_list` and Answerer."""
        said: list[str] = []
        sha256 = model_digest(self.model)
        listed = write_list(self.words, self.target, size=self.unit_size, folder=self.folder, say=said.append)
        answerer = Answerer(
            self.model,
            self.question,
            sha256=sha256,
            threads=self.threads,
            batch=self.batch,
        )
        return Survey(
            listed=listed, sha256=sha256, card=asdict(answerer.predictor.card), batch=answerer.batch, said=tuple(said)
        )


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found."""

    listed: Listed
    sha256: str  # of the model
    card: dict[str, Any]
    batch: int  # that was asked for, or is best
    said: tuple[str, ...]  # of what is left out
