"""What a check of a data set found: findings with their files, counts and sizes, as text and as JSON."""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hybridvit.errors import DatasetError, plural

Severity = Literal["error", "warning", "note"]
MOST_LISTED = 10_000  # files or groups of one finding in the JSON
MOST_SHOWN = 5  # of them in the text
_TITLES: dict[Severity, str] = {"error": "Errors", "warning": "Warnings", "note": "Notes"}


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """The images of one split; `name` is empty for a folder without splits."""

    name: str
    classes: dict[str, int]  # class -> images, bad ones included
    num_images: int
    num_bad: int


@dataclass(frozen=True)
class Finding:
    """One kind of thing worth knowing. An error is what training or evaluation would stop at."""

    severity: Severity
    kind: str  # a word for machines
    what: str  # a sentence to which the number belongs
    number: int
    examples: tuple[str, ...] = ()  # at most MOST_LISTED
    num_examples: int | None = None  # of how many these are the first; None: `number`
    fix: str = ""  # a sentence, where what to do does not follow from `what`

    def lines(self) -> list[str]:
        """The finding, its first examples and what to do."""
        fix = [f"    Fix: {self.fix}"] if self.fix else []
        return [f"  {self.what}: {self.number:,}", *(f"    {each}" for each in self._shown()), *fix]

    def sentence(self) -> str:
        """The same in one line, as a remark or an error has it."""
        shown = "; ".join(self._shown())
        return f"{self.what}: {self.number:,}{f' ({shown})' if shown else ''}. {self.fix}".rstrip()

    def _shown(self) -> list[str]:
        """The first examples, and how many more there are."""
        shown = [_printable(each) for each in self.examples[:MOST_SHOWN]]
        rest = (self.number if self.num_examples is None else self.num_examples) - len(shown)
        return [*shown, f"and {rest:,} more"] if rest > 0 and shown else shown


def finding(
    severity: Severity, kind: str, what: str, examples: Iterable[str], number: int | None = None, *, fix: str = ""
) -> list[Finding]:
    """A finding, or none if nothing was found; `number` is that of the examples unless there are more."""
    listed = tuple(examples)
    number = len(listed) if number is None else number
    return [Finding(severity, kind, what, number, listed[:MOST_LISTED], fix=fix)] if number else []


def remarks_or_refusal(findings: Iterable[Finding], root: str, use: str = "trained on") -> list[str]:
    """What is said of findings before `root` is used: the warnings. Raises DatasetError where there are errors."""
    listed = list(findings)
    errors = [each.sentence() for each in listed if each.severity == "error"]
    if errors:
        raise DatasetError(f"{root} cannot be {use}. {' '.join(errors)}")
    return [each.sentence() for each in listed if each.severity == "warning"]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """All of it. `is_usable` is whether a training with `on_bad_image="error"` would go through."""

    root: str
    num_images: int
    num_bad: int
    splits: tuple[SplitCounts, ...]
    kinds: dict[str, int]  # JPEG, PNG, ... -> images
    modes: dict[str, int]  # RGB, L, ... -> images
    sizes: dict[str, tuple[int, int]]  # smallest, median, largest (by pixels) -> width, height
    total_bytes: int
    findings: tuple[Finding, ...]
    bad_files: tuple[tuple[str, str], ...]  # path and what is wrong with it; at most MOST_LISTED
    seconds: float
    to_train: bool = True  # or to evaluate on alone

    @classmethod
    def of(
        cls,
        table: sqlite3.Connection,
        root: str,
        splits: Mapping[str, Sequence[str]],
        names: Sequence[str],
        sets: Sequence[Sequence[int]],
        findings: Sequence[Finding],
        *,
        seconds: float,
        to_train: bool = True,
    ) -> "CheckReport":
        """The counts of a filled table, with the findings in the order of their severity."""
        counts = count_by_class(table, sets)
        images = dict(table.execute("select split, count(*) from files group by 1"))
        bad = dict(table.execute("select split, count(*) from files where error is not null group by 1"))
        label = {name: number for number, name in enumerate(names)}
        parts = []
        for number, (name, classes) in enumerate(splits.items()):
            per_class = {each: counts[number, label[each]][0] for each in classes}
            num_images = images.get(number, 0)
            parts.append(SplitCounts(name=name, classes=per_class, num_images=num_images, num_bad=bad.get(number, 0)))
        order = list(_TITLES)
        return cls(
            root=root,
            num_images=sum(part.num_images for part in parts),
            num_bad=sum(bad.values()),
            splits=tuple(parts),
            kinds=_counts(table, "kind"),
            modes=_counts(table, "mode"),
            sizes=_sizes(table),
            total_bytes=table.execute("select coalesce(sum(bytes), 0) from files").fetchone()[0],
            findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
            bad_files=_messages(table),
            seconds=round(seconds, 3),
            to_train=to_train,
        )

    @property
    def is_usable(self) -> bool:
        """No errors; warnings and notes are fine."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return asdict(self) | {"is_usable": self.is_usable}

    def text(self) -> str:
        """The report as a person reads it."""
        lines = [f"{self.num_images:,} images ({self.total_bytes / 1e6:,.1f} MB) in {self.root}"]
        for split in self.splits:
            name = f"{split.name}: " if split.name else ""
            lines.append(f"  {name}{split.num_images:,} images{_of_classes(split)}; {split.num_bad:,} bad")
        if self.sizes:
            sides = ", ".join(f"{name} {width}x{height}" for name, (width, height) in self.sizes.items())
            lines.append(f"  sizes: {sides} px")
            lines.append(f"  kinds: {_listed(self.kinds)}; colours: {_listed(self.modes)}")
        for severity, title in _TITLES.items():
            found = [finding for finding in self.findings if finding.severity == severity]
            if found:
                lines += ["", title, *(line for finding in found for line in finding.lines())]
        use = "train" if self.to_train else "evaluate"
        verdict = f"Ready to {use} on." if self.is_usable else "Not ready: see the errors above."
        return "\n".join([*lines, "", f"{verdict} Checked in {self.seconds:.1f} s."])


def count_by_class(
    table: sqlite3.Connection, sets: Sequence[Sequence[int]]
) -> Mapping[tuple[int, int], tuple[int, int]]:
    """The images, and the good ones among them, by the numbers of split and class; `sets` are the labels of images."""
    counts: dict[tuple[int, int], tuple[int, int]] = defaultdict(lambda: (0, 0))
    query = "select split, labels, count(*), sum(error is null) from files group by 1, 2"
    for split, number, images, good in table.execute(query):
        for label in sets[number]:
            before = counts[split, label]
            counts[split, label] = (before[0] + images, before[1] + good)
    return counts


def _messages(table: sqlite3.Connection) -> tuple[tuple[str, str], ...]:
    query = f"select path, error from files where error is not null order by path limit {MOST_LISTED}"
    return tuple((os.fsdecode(path), message) for path, message in table.execute(query))


def _counts(table: sqlite3.Connection, column: str) -> dict[str, int]:
    query = f"select {column}, count(*) from files where {column} is not null group by 1 order by 2 desc, 1"
    return dict(table.execute(query))


def _sizes(table: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    number = table.execute("select count(*) from files where width is not null").fetchone()[0]
    if not number:
        return {}
    query = "select width, height from files where width is not null order by width * height, width limit 1 offset ?"
    places = {"smallest": 0, "median": (number - 1) // 2, "largest": number - 1}
    return {name: table.execute(query, (place,)).fetchone() for name, place in places.items()}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _of_classes(split: SplitCounts) -> str:
    """How its images are spread over classes, where it has any."""
    per_class = sorted(split.classes.values())
    if not per_class:
        return ""
    spread = f"{per_class[0]:,} to {per_class[-1]:,} in a class"
    if sum(per_class) != split.num_images > 0:  # not one each
        spread += f", {sum(per_class) / split.num_images:.2f} labels an image"
    return f" in {plural(len(per_class), 'class')}, {spread}"
