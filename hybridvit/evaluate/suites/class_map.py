"""Which class each folder of a suite is, by WordNet id or by number."""

import os
from collections import defaultdict
from collections.abc import Sequence

from hybridvit.data.scan import subfolders, without
from hybridvit.errors import DatasetError, plural, some
from hybridvit.evaluate.suites.labels import NUM_CLASSES, subset_synsets, synsets
from hybridvit.evaluate.suites.suites import Suite, is_own


def class_indices(suite: Suite, root: str, names: Sequence[str]) -> dict[str, int]:
    """The index of each class folder in `root`; of a suite with a subset, in the subset's numbers.

    The folders of V2 are numbers that are the index: sorted as text they would be other classes. `names` are those of a
    folder of one's own. Raises DatasetError for folders that are not exactly the suite's.
    """
    folders = subfolders(root)
    numeric = [name for name in folders if name.isascii() and name.isdecimal()]
    if is_own(suite):
        return _known(suite, root, folders, names, all_of_them=False)
    if numeric and len(numeric) < len(folders):
        others = without(folders, numeric)
        raise DatasetError(
            f"{root} mixes {plural(len(numeric), 'folder')} named by a number ({some(numeric, 3)}) with "
            f"{len(others)} that are not ({some(others, 3)}), so no map of classes holds for all. Separate them."
        )
    if numeric and suite.subset is None:
        return _by_number(suite, root, numeric)
    expected = subset_synsets(suite.subset) if suite.subset else synsets()
    return _known(suite, root, folders, expected, all_of_them=True)


def _by_number(suite: Suite, root: str, folders: Sequence[str]) -> dict[str, int]:
    by_index = defaultdict[int, list[str]](list)
    for name in folders:
        by_index[int(name)].append(name)
    twice = [" and ".join(names) for names in by_index.values() if len(names) > 1]
    if twice:
        raise DatasetError(
            f"{root} has {plural(len(twice), 'class')} under two names: {some(twice, 3)}. Keep one of each."
        )
    beyond = [name for name in folders if int(name) >= NUM_CLASSES]
    missing = [str(index) for index in range(NUM_CLASSES) if index not in by_index]
    _check(suite, root, beyond, missing, NUM_CLASSES)
    return {name: int(name) for name in folders}


def _known(
    suite: Suite, root: str, folders: Sequence[str], expected: Sequence[str], *, all_of_them: bool
) -> dict[str, int]:
    index = {name: number for number, name in enumerate(expected)}
    if not any(name in index for name in folders):
        _propose(suite, root, expected)
    unknown = without(folders, expected)
    missing = without(expected, folders) if all_of_them else []
    for other in ("a", "r"):
        if all_of_them and other != suite.subset and set(folders) == set(subset_synsets(other)):
            raise DatasetError(
                f"{root} is given as '{suite.name}', but its 200 classes are those of ImageNet-{other.upper()}: "
                f"{len(unknown)} are not in '{suite.name}' ({some(unknown, 3)}). It is the suite '{other}'."
            )
    _check(suite, root, unknown, missing, len(expected))
    return {name: index[name] for name in sorted(folders, key=index.__getitem__)}


def _check(suite: Suite, root: str, unknown: Sequence[str], missing: Sequence[str], number: int) -> None:
    if unknown:
        raise DatasetError(
            f"{root} has {plural(len(unknown), 'folder')} named like no class of '{suite.name}': "
            f"{some(unknown, 3, quoted=True)}. Remove them, or give the folder of the suite itself."
        )
    if missing:
        raise DatasetError(
            f"{root} lacks {len(missing)} of the {number} classes of '{suite.name}': {some(missing, 3, quoted=True)}. "
            "Unpack the whole archive."
        )


def _propose(suite: Suite, root: str, expected: Sequence[str]) -> None:
    """Raise DatasetError for a folder without classes, with the one that has them where it is near."""
    known = {*expected, *(map(str, range(NUM_CLASSES)) if suite.subset is None and not is_own(suite) else ())}
    near = [os.path.dirname(os.path.abspath(root)), *(os.path.join(root, name) for name in subfolders(root))]
    right = next((each for each in near if len(known.intersection(subfolders(each))) > len(expected) // 2), None)
    fix = f"Did you mean {right}?" if right else f"They are named like {some(list(expected), 3, quoted=True)}."
    raise DatasetError(f"{root} has no class folder of '{suite.name}'. {fix}")
