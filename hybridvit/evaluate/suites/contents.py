"""Robustness suites as `hybridvit check-data` looks at them: found by layout, and checked as for an evaluation."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hybridvit.data.check_contents import WHOLE, Contents
from hybridvit.data.check_report import finding
from hybridvit.data.scan import files_in, relative, subfolders
from hybridvit.errors import DatasetError, some
from hybridvit.evaluate.suites.labels import NUM_CLASSES, subset_synsets, synsets
from hybridvit.evaluate.suites.layout import NUMBERED, Choice, Part, corruption_folders, open_suite
from hybridvit.evaluate.suites.suites import SUITES, Suite, is_severity

PLAIN_NAMES = frozenset(("val", "sketch"))
"""Official names of folders that other data sets have too: they tell of no suite by themselves."""
MOST = 0.75  # of the classes of a suite, from which on a folder is taken for it


def contents_of_suite(suite: Suite, folder: Path, *, partial: bool = False) -> Contents:
    """The pictures of a suite, each part a split; with `partial`, corruptions and severities may be missing.

    What is unusual about it is a warning. Raises DatasetError for every fault of the layout, as `open_suite`.
    """
    said: list[str] = []
    parts = open_suite(suite, folder, (), Choice(partial=partial), say=said.append)
    names = subset_synsets(suite.subset) if suite.subset else synsets()
    answers = [_answers(part) for part in parts]
    sets = list(dict.fromkeys(labels for part in answers for labels in part))
    number_of = {labels: number for number, labels in enumerate(sets)}

    def rows() -> Iterator[tuple[int, int, bytes]]:
        for split, (part, right) in enumerate(zip(parts, answers, strict=True)):
            for path, labels in zip(part.listing.paths, right, strict=True):
                yield split, number_of[labels], os.fsencode(relative(path, str(folder)))

    def classes(right: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
        return tuple(names[label] for label in sorted({label for labels in right for label in labels}))

    titles = [WHOLE] if len(parts) == 1 else [part.title for part in parts]
    return Contents(
        root=str(folder),
        names=names,
        splits={title: classes(right) for title, right in zip(titles, answers, strict=True)},
        sets=sets,
        rows=rows(),
        findings=[
            *finding("warning", "unusual-suite", f"Unusual for {suite.title}", said),
            *finding("note", "suite", "Looked at as a robustness suite (another one: --suite)", [suite.name]),
        ],
        to_train=False,
    )


def recognised(folder: Path) -> Suite | None:
    """The suite that a folder is laid out as, by its name and by those of the folders in it; None: no suite.

    ImageNet's validation images in class folders are not taken for a suite: one may train on these, too. Raises
    DatasetError for a folder that merely holds suites.
    """
    by_name = next((suite for suite in SUITES.values() if folder.name in _telling_names(suite)), None)
    names = subfolders(str(folder))
    suite = by_name or _of_classes(names) or _of_corruptions(folder)
    if (
        suite is None
        and not names
        and any(NUMBERED.fullmatch(os.path.basename(path)) for path in files_in(str(folder)))
    ):
        suite = SUITES["real"]
    inside = [name for each in SUITES.values() for name in _telling_names(each) if name in names]
    if suite is None and inside:
        raise DatasetError(
            f"{folder} holds robustness suites ({some(inside, quoted=True)}), and is none. Check each by itself, such "
            f"as {folder / inside[0]}."
        )
    return suite


def _telling_names(suite: Suite) -> tuple[str, ...]:
    return tuple(name for name in suite.folders if name not in PLAIN_NAMES)


def _of_classes(names: Sequence[str]) -> Suite | None:
    """The suite of which these are most of the class folders, and few others; V2's three are laid out alike."""
    numbers = [name for name in names if name.isascii() and name.isdecimal() and int(name) < NUM_CLASSES]
    if len(numbers) > MOST * NUM_CLASSES:
        return SUITES["v2-matched"]
    for which in ("a", "r"):
        shared = set(names) & set(subset_synsets(which))
        if min(len(shared) / len(subset_synsets(which)), len(shared) / max(1, len(names))) > MOST:
            return SUITES[which]
    return None


def _of_corruptions(folder: Path) -> Suite | None:
    """The suite of corruptions that the folders are of, if they hold severities that hold classes of ImageNet.

    So are the folders of a single corruption, which is a level too deep.
    """
    found = {folder.name: folder} if _has_severities(folder) else corruption_folders(folder)
    laid_out = {name for name, place in found.items() if _has_severities(place)}
    if not laid_out:
        return None
    fitting = (suite for suite in SUITES.values() if laid_out & {*suite.corruptions, *suite.extra})
    return next(fitting, SUITES["3dcc"])  # its names are as found


def _has_severities(place: Path) -> bool:
    return any(is_severity(name) and _has_synsets(place / name) for name in subfolders(str(place)))


def _has_synsets(place: Path) -> bool:
    return not set(subfolders(str(place))).isdisjoint(synsets())


def _answers(part: Part) -> list[tuple[int, ...]]:
    return [tuple(label for label in row if label >= 0) for row in part.right.tolist()]
