"""Which image files there are: a folder of class folders, or the files and patterns of a command line."""

import glob
import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hybridvit.errors import DatasetError, some

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a folder, sorted by class and then by path (as bytes, the same on every machine)."""

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]  # index into class_names
    class_names: tuple[str, ...]
    fingerprint: str  # hash of all relative paths and sizes

    def split(self, share: float) -> "tuple[Listing, Listing]":
        """Two listings with the same classes: the rest, and about `share` of every class, but at least one image.

        A file's relative path alone decides, by its hash: no seed moves a file, and most stay where they are when
        others come. Raises `DatasetError` for a class with one image.
        """
        held_out: set[int] = set()
        for label, name in enumerate(self.class_names):
            members = [place for place, each in enumerate(self.labels) if each == label]
            if len(members) == 1:
                raise DatasetError(
                    f"class '{name}' has 1 image in {self.root}, which cannot be both trained on and held out. Add "
                    "images, or remove the folder."
                )
            members.sort(key=self._rank)
            held_out.update(members[: max(1, round(share * len(members)))] if members else ())
        places = range(len(self.paths))
        return (
            self._part([place for place in places if place not in held_out], f"all but {share}"),
            self._part([place for place in places if place in held_out], f"{share}"),
        )

    def fold(self, part: int, count: int) -> "tuple[Listing, Listing]":
        """Two listings with the same classes: the rest, and part `part` (from 1) of `count` about equal ones.

        A file's relative path alone decides, by its hash: no file ever moves to another part. Raises `DatasetError` for
        a class whose images are all in the part.
        """
        held_out = [int.from_bytes(self._rank(place)) % count == part - 1 for place in range(len(self.paths))]
        trained = {label for label, out in zip(self.labels, held_out, strict=True) if not out}
        lost = [name for label, name in enumerate(self.class_names) if label not in trained and label in self.labels]
        if lost:
            raise DatasetError(
                f"In fold {part}/{count} of {self.root} all images of {some(lost, quoted=True)} are held out, and none "
                "is left to train on. Add images, or hold out with --data.val_share."
            )
        return (
            self._part([place for place, out in enumerate(held_out) if not out], f"all but fold {part}/{count}"),
            self._part([place for place, out in enumerate(held_out) if out], f"fold {part}/{count}"),
        )

    def _rank(self, place: int) -> bytes:
        return hashlib.sha256(os.fsencode(relative(self.paths[place], self.root))).digest()

    def _part(self, places: list[int], name: str) -> "Listing":
        return replace(
            self,
            paths=tuple(self.paths[place] for place in places),
            labels=tuple(self.labels[place] for place in places),
            fingerprint=f"{self.fingerprint} ({name})",
        )


def scan_folder(root: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> Listing:
    """List root/<class>/**/<image>; the class names are the sorted folder names, or those given.

    `class_names` is the map a model was trained with: it is kept, and a class without a folder here is fine. Hidden
    files and files without an image extension are left out; links are followed, but never in a circle.

    Raises `DatasetError` for a folder that is missing, empty or unreadable, that has no class folders, a class without
    images, or a class that `class_names` does not have.
    """
    root = os.fspath(root)
    folders = class_folders(root)
    names = tuple(class_names) if class_names is not None else tuple(folders)
    unknown = [name for name in folders if name not in set(names)]
    if unknown:
        raise DatasetError(
            f"{root} has {len(unknown)} classes that the {len(names)} known ones do not include: "
            f"{some(unknown, quoted=True)} (known: {some(names, quoted=True)}). The class map comes from the training "
            "data: remove or rename these folders, or train with them."
        )
    index = {name: label for label, name in enumerate(names)}
    digest = hashlib.sha256()
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for folder in folders:
        before = len(paths)
        for path in _images(os.path.join(root, folder)):
            size = _size(path)
            digest.update(os.fsencode(relative(path, root)) + b"\0%d\0" % size)
            paths.append(path)
            labels.append(index[folder])
        if len(paths) == before:
            empty.append(folder)
    if empty:
        what = f"class '{empty[0]}' has" if len(empty) == 1 else f"classes {some(empty, quoted=True)} have"
        raise DatasetError(
            f"{what} no images in {root}: no file there ends in {_extensions()}. Add images, or remove the folder."
        )
    order = sorted(range(len(paths)), key=lambda place: labels[place])  # stable: class_names may be in another order
    return Listing(
        root=root,
        paths=tuple(paths[place] for place in order),
        labels=tuple(labels[place] for place in order),
        class_names=names,
        fingerprint=digest.hexdigest(),
    )


def class_folders(root: str) -> list[str]:
    """The names of the folders in `root`, sorted by bytes. Raises `DatasetError` if they cannot be classes."""
    folders = subfolders(root)
    layout = f"Put one folder per class there: {os.path.join(root, 'cat', 'one.jpg')}, {os.path.join(root, 'dog')}/..."
    if not folders:
        images = images_in(root)
        if images:
            raise DatasetError(f"{root} has {len(images)} images but no class folders. {layout}")
        raise DatasetError(f"{root} is empty: it has neither class folders nor images. {layout}")
    splits = [os.path.join(root, folder) for folder in folders]
    if SPLITS.issuperset(folder.lower() for folder in folders) and not any(map(images_in, splits)):
        raise DatasetError(
            f"{root} holds splits ({some(folders, quoted=True)}), not classes. Give the folder of one split, such "
            f"as {splits[0]}."
        )
    return folders


def subfolders(root: str) -> list[str]:
    """The names of the folders in `root`, hidden ones left out, sorted by bytes. Raises `DatasetError`."""
    return [entry.name for entry in _entries(root) if _is_folder(entry)]


def images_in(folder: str) -> list[str]:
    """The image files that lie in the folder itself."""
    return [entry.path for entry in _entries(folder) if is_image(entry.path) and not _is_folder(entry)]


def find_images(patterns: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The image files meant by a command line: files as they stand, folders with all below them, and patterns (* ? **).

    In the order given, each file once; inside a folder or pattern sorted by bytes. A file that is named is taken
    whatever its extension. Raises `DatasetError` naming the first argument that matches nothing.
    """
    found: dict[Path, None] = {}
    for argument in patterns:
        pattern = os.fspath(argument)
        if os.path.isdir(pattern):
            matches = list(_images(pattern))
            fault = f"has no file that ends in {_extensions()}"
        elif os.path.lexists(pattern):
            matches, fault = [pattern], ""
        else:
            hits = sorted(glob.glob(pattern, recursive=True), key=os.fsencode)
            matches = [
                path for hit in hits for path in (_images(hit) if os.path.isdir(hit) else [hit]) if is_image(path)
            ]
            is_pattern = glob.has_magic(pattern)
            fault = "matches no image" if is_pattern else "does not exist"
        if not matches:
            raise DatasetError(
                f"'{pattern}' {fault}. Give image files, folders of them, or patterns such as 'photos/*.jpg'."
            )
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, hidden entries left out, sorted by the bytes of the name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        raise DatasetError(
            f"Cannot read the folder {folder}: {error.strerror or error}. Check the path and its permissions."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; if it is named like an image, asking for its size names it
        return False


def _raise(folder: str, error: DatasetError) -> None:
    raise error


def walk(
    folder: str,
    *,
    on_error: Callable[[str, DatasetError], None] = _raise,
    above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[str]:
    """All files below a folder, hidden ones left out; a link back to a folder above it is not entered again.

    `on_error` is given every folder that cannot be read, and may return to go on without it.
    """
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        entries = [] if here in above else _entries(folder)
    except OSError as error:
        on_error(folder, DatasetError(f"Cannot read the folder {folder}: {error.strerror or error}."))
        return
    except DatasetError as error:
        on_error(folder, error)
        return
    for entry in entries:
        if _is_folder(entry):
            yield from walk(entry.path, on_error=on_error, above=above | {here})
        else:
            yield entry.path


def _images(folder: str) -> Iterator[str]:
    """All image files below a folder."""
    return (path for path in walk(folder) if is_image(path))


def relative(path: str, root: str) -> str:
    """The path inside `root`, written alike on every system: what is hashed, sorted or kept must not depend on it."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def is_image(path: str) -> bool:
    """Whether a path is named like an image."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        link = " (a link to nothing)" if os.path.islink(path) else ""
        raise DatasetError(
            f"Cannot read {path}{link}: {error.strerror or error}. Restore the file, or remove it from the data set."
        ) from error


def fold_name(name: str) -> str:
    """What a file system sees that ignores capitals and the ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def _extensions() -> str:
    return " ".join(sorted(EXTENSIONS))
