"""What `evaluate --suites` is asked for, as one value. Importing it needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hybridvit.annotations import converted
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.names import StoredAs

Protocol = Literal["auto", "card", "paper-fastvit", "as-is", "resized"]
MADE = "c=on-the-fly"
"""The word for ImageNet-C without its 75 copies of ImageNet."""


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """The options of robustness suites."""

    suites: Sequence[str] | None = None
    """instead of DATA, suites that all FILES answer: imagenet, v2-matched, v2-threshold, v2-top, real, a, r, sketch, c,
    c-bar, 3dcc, each as NAME=FOLDER, or NAME alone below --root; c=on-the-fly makes its images of those of imagenet
    (needs hybridvit[robustness]); any other NAME=FOLDER is a folder of the model's classes. ImageNet-O is none of
    them: it is out-of-distribution detection, not accuracy."""
    root: Path | None = None
    """folder that has suites under their official names; without --suites all that are found."""
    protocol: Protocol = "auto"
    """how images are prepared: auto (as the card says, and corrupted ones in their own size where the file takes it),
    card, paper-fastvit (crop 0.875), as-is, resized."""
    share: float = 1.0
    """of each suite's images, from 0 to 1; said with every figure."""
    images_per_class: int | None = None
    """at most so many of each class."""
    partial: bool = False
    """take the corruptions and severities that are there, without an mCE."""
    only: Sequence[str] | None = None
    """the corruptions to answer, without an mCE."""
    stored: StoredAs = "jpeg"
    """what c=on-the-fly keeps its images as: jpeg of quality 85, as ImageNet-C's files are, or raw: every pixel."""
    force: bool = False
    """compute again what is kept from before."""
    folder: Path | None = None
    """folder that keeps what is done and the report; by default runs/evaluate/ and the path of the first file."""
    predictions: Path | None = None
    """.csv.gz or .parquet file for the answer of every file to every image."""
    report: Path | None = None
    """.html file for the report; by default report.html in that folder."""

    @property
    def is_asked(self) -> bool:
        """Whether suites are asked for at all."""
        return self.suites is not None or self.root is not None

    @property
    def said_share(self) -> str:
        """What part of the images is answered; empty where it is all of them."""
        parts = [f"{100 * self.share:g} % of the images"] if self.share < 1 else []
        parts += [f"at most {self.images_per_class} images a class"] if self.images_per_class else []
        return f" ({', '.join(parts)})" if parts else ""

    def check(self) -> None:
        """Raise UsageError for a value outside of its range, or for options that do nothing."""
        if not self.is_asked:
            changed = [name for name, value in vars(self).items() if value != getattr(NO_SUITES, name)]
            if changed:
                raise UsageError(f"--{changed[0]} is of suites, but none is asked for. Add --suites or --root.")
            return
        converted(self.protocol, Protocol, name="--protocol", fix="See `hybridvit evaluate --help`.")
        converted(self.stored, StoredAs, name="--stored", fix="See `hybridvit evaluate --help`.")
        if self.stored != NO_SUITES.stored and MADE not in (self.suites or ()):
            raise UsageError(f"--stored is of {MADE}, which is not among --suites. Add it, or leave --stored out.")
        if not 0 < self.share <= 1:
            raise UsageError(f"--share is {self.share}, but it must be above 0 and at most 1. 1 takes all images.")
        if self.images_per_class is not None and self.images_per_class < 1:
            raise UsageError(f"--images_per_class is {self.images_per_class}, but it must be at least 1.")
        if self.predictions is not None and not self.predictions.name.endswith((".csv.gz", ".parquet")):
            raise UsageError(f"--predictions is {self.predictions}, but it must end in .csv.gz or .parquet.")


NO_SUITES = SuiteOptions()
