"""Images with their labels, as a list; of a folder of class folders, and in two parts."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from hybridvit.data.scan import (
    LeftOut,
    Say,
    check_known,
    class_folders,
    extensions,
    file_size,
    files_in,
    quiet,
    relative,
    walk,
)
from hybridvit.errors import DatasetError, some

Labels = tuple[int, ...]  # of one image
Label = TypeVar("Label", int, Labels)


@dataclass(frozen=True, kw_only=True)
class Listing(Generic[Label]):
    """Images with the class of each; or its classes, where it may have several or none.

    Those of a folder are sorted by class and then by path (as bytes, the same on every machine).
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[Label, ...]  # index into class_names
    class_names: tuple[str, ...]
    fingerprint: str  # hash of all relative paths and sizes

    def split(self, share: float, *, say: Say = quiet) -> "tuple[Listing[Label], Listing[Label]]":
        """Two listings with the same classes: the rest, and about `share` of every class, but at least one image.

        A file's relative path alone decides, by its hash: no seed moves a file, and most stay where they are when
        others come. `say` is told of the classes with one image, which is kept in the rest. Raises `DatasetError` if
        no class has more.
        """
        members = self._members()
        single = [name for label, name in enumerate(self.class_names) if len(members[label]) == 1]
        tell_single(single, self.root, say)
        held_out = part_of_each([sorted(members[label], key=self._rank) for label in sorted(members)], share)
        if not held_out:
            raise DatasetError(
                f"No class in {self.root} has more than one image, so none can be held out. Add images, or name a "
                "folder to validate on."
            )
        places = range(len(self.paths))
        return (
            self._part([place for place in places if place not in held_out], f"all but {share}"),
            self._part([place for place in places if place in held_out], f"{share}"),
        )

    def fold(self, part: int, count: int) -> "tuple[Listing[Label], Listing[Label]]":
        """Two listings with the same classes: the rest, and part `part` (from 1) of `count` about equal ones.

        A file's relative path alone decides, by its hash: no file ever moves to another part. Raises `DatasetError` for
        a class whose images are all in the part.
        """
        held_out = [int.from_bytes(self._rank(place)) % count == part - 1 for place in range(len(self.paths))]
        members = self._members()
        lost = [
            name
            for label, name in enumerate(self.class_names)
            if members[label] and all(held_out[place] for place in members[label])
        ]
        if lost:
            raise DatasetError(
                f"In fold {part}/{count} of {self.root} all images of {some(lost, quoted=True)} are held out, and none "
                "is left to train on. Add images, or hold out with --data.val_share."
            )
        return (
            self._part([place for place, out in enumerate(held_out) if not out], f"all but fold {part}/{count}"),
            self._part([place for place, out in enumerate(held_out) if out], f"fold {part}/{count}"),
        )

    def _members(self) -> dict[int, list[int]]:
        """The places of the images of each class, and under -1 of those without any."""
        members = defaultdict[int, list[int]](list)
        for place, label in enumerate(self.labels):
            for each in (label,) if isinstance(label, int) else label or (-1,):
                members[each].append(place)
        return members

    def _rank(self, place: int) -> bytes:
        return hashlib.sha256(os.fsencode(relative(self.paths[place], self.root))).digest()

    def _part(self, places: list[int], name: str) -> "Listing[Label]":
        return replace(
            self,
            paths=tuple(self.paths[place] for place in places),
            labels=tuple(self.labels[place] for place in places),
            fingerprint=f"{self.fingerprint} ({name})",
        )


def part_of_each(groups: Sequence[Sequence[int]], share: float) -> set[int]:
    """About `share` of each group, at least one member of those that have two, and never the last that is left.

    Groups may have members in common, as the images of several labels do. The smallest group comes first and gives its
    first members; what was decided there counts in the others, so that rare labels get their share (as in Sechidis et
    al., On the Stratification of Multi-label Data, 2011, with an order in place of lots).
    """
    left = [len(group) for group in groups]
    groups_of = defaultdict[int, list[int]](list)
    for number, group in enumerate(groups):
        for member in group:
            groups_of[member].append(number)
    held_out, decided = set[int](), set[int]()
    for number in sorted(range(len(groups)), key=lambda number: len(groups[number])):
        total = len(groups[number])
        wanted = max(1, round(share * total)) - (total - left[number])
        for member in groups[number]:
            if member in decided:
                continue
            decided.add(member)
            if wanted > 0 and all(left[each] > 1 for each in groups_of[member]):
                wanted -= 1
                held_out.add(member)
                for each in groups_of[member]:
                    left[each] -= 1
    return held_out


def tell_single(names: Sequence[str], source: str, say: Say) -> None:
    """Say which classes have one image, which is trained on and not held out."""
    if names:
        what = f"Class '{names[0]}' has" if len(names) == 1 else f"{len(names)} classes have"
        which = "" if len(names) == 1 else f" each ({', '.join(map(repr, names))})"
        say(
            f"{what} one image{which} in {source}: it is trained on, and none is held out, so the accuracy says "
            "nothing of it."
        )


def scan_folder(
    root: str | os.PathLike[str], class_names: Sequence[str] | None = None, *, say: Say = quiet
) -> Listing[int]:
    """List root/<class>/**/<image>; the class names are the sorted folder names, or those given.

    `class_names` is the map a model was trained with: it is kept, and a class without a folder here is fine. Hidden
    files, those that systems make, files without an image extension and images outside of the class folders are left
    out; `say` is told of the last two, in one line. Links are followed, but never in a circle.

    Raises `DatasetError` for a folder that is missing, empty or unreadable, that has no class folders, a class without
    images, or a class that `class_names` does not have.
    """
    root = os.fspath(root)
    folders = class_folders(root)
    names = tuple(class_names) if class_names is not None else tuple(folders)
    check_known(folders, names, source=root, otherwise="remove or rename these folders")
    index = {name: label for label, name in enumerate(names)}
    digest = hashlib.sha256()
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    left_out = LeftOut()
    left_out.outside = len(list(left_out.images(files_in(root))))
    for folder in folders:
        before = len(paths)
        for path in left_out.images(walk(os.path.join(root, folder))):
            size = file_size(path)
            digest.update(os.fsencode(relative(path, root)) + b"\0%d\0" % size)
            paths.append(path)
            labels.append(index[folder])
        if len(paths) == before:
            empty.append(folder)
    if empty:
        what = f"class '{empty[0]}' has" if len(empty) == 1 else f"classes {some(empty, quoted=True)} have"
        raise DatasetError(
            f"{what} no images in {root}: no file there ends in {extensions()}{left_out.advice}. Add images, or "
            "remove the folder."
        )
    left_out.tell(root, say)
    order = sorted(range(len(paths)), key=lambda place: labels[place])  # stable: class_names may be in another order
    return Listing(
        root=root,
        paths=tuple(paths[place] for place in order),
        labels=tuple(labels[place] for place in order),
        class_names=names,
        fingerprint=digest.hexdigest(),
    )
