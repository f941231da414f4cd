"""Which image files there are: in a folder of class folders, or those that a command line means."""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hybridvit.data.file_kind import VIDEO_ENDINGS, advice_on, image_endings
from hybridvit.errors import DatasetError, UsageError, plural, some

SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items"),  # macOS
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),  # Windows
        *("@eadir", "#recycle", "@recycle", "@recently-snapshot"),  # network storage
        *("lost+found", "__pycache__"),
    )
)
"""Folders and files that systems and network storage make by themselves, without capitals: they are no one's images."""
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


Say = Callable[[str], None]


def is_url(text: str) -> bool:
    """Whether a word of a command line is an http or https address."""
    return text.lower().startswith(("http://", "https://"))


def quiet(remark: str) -> None:
    """The ear of those who do not want to be told."""


class LeftOut:
    """The files that a search passes over, by their ending; hidden ones and those of the system are not counted."""

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self.outside = 0  # pictures beside the class folders

    def images(self, paths: Iterable[str], *, videos: bool = False) -> Iterator[str]:
        """Those of the files that are named like images, or videos if these are wanted; the others are counted."""
        for path in paths:
            if is_image(path) or (videos and is_video(path)):
                yield path
            else:
                self.endings[ending(path) or "none"] += 1

    @property
    def advice(self) -> str:
        """How those could be read that are pictures, but of a kind without a reader here: the end of a list."""
        return "".join(sorted({advice_on(ending) for ending in self.endings}))

    def tell(self, where: str, say: Say) -> None:
        """Say in one line how many there are and why, if there are any."""
        parts = []
        if number := self.endings.total():
            known = ", ".join(f"{ending} {count:,}" for ending, count in self.endings.most_common())
            parts.append(f"{plural(number, 'file')} without the ending of an image ({known}{self.advice})")
        if self.outside:
            parts.append(f"{plural(self.outside, 'picture')} outside of the class folders, without a label")
        if parts:
            say(f"Left out of {where}: {'; '.join(parts)}.")


def class_folders(root: str) -> list[str]:
    """The names of the folders in `root`, sorted by bytes. Raises `DatasetError` if they cannot be classes."""
    folders = subfolders(root)
    layout = f"Put one folder per class there: {os.path.join(root, 'cat', 'one.jpg')}, {os.path.join(root, 'dog')}/..."
    if not folders:
        images = images_in(root)
        if images:
            raise DatasetError(f"{root} has {plural(len(images), 'image')} but no class folders. {layout}")
        raise DatasetError(f"{root} is empty: it has neither class folders nor images. {layout}")
    splits = [os.path.join(root, folder) for folder in folders]
    if SPLITS.issuperset(folder.lower() for folder in folders) and not any(map(images_in, splits)):
        raise DatasetError(
            f"{root} holds splits ({some(folders, quoted=True)}), not classes. Give the folder of one split, such "
            f"as {splits[0]}."
        )
    return folders


def subfolders(root: str) -> list[str]:
    """The folders in `root`, without hidden ones and those of the system, sorted by bytes. Raises `DatasetError`."""
    return [entry.name for entry in _entries(root) if _is_folder(entry)]


def files_in(folder: str) -> list[str]:
    """The files that lie in the folder itself."""
    return [entry.path for entry in _entries(folder) if not _is_folder(entry)]


def images_in(folder: str) -> list[str]:
    """Those of them that are named like images."""
    return list(filter(is_image, files_in(folder)))


def find_images(patterns: Iterable[str | os.PathLike[str]], *, videos: bool = False, say: Say = quiet) -> list[Path]:
    """The image files meant by a command line: files as they stand, folders with all below them, and patterns (* ? **).

    In the order given, each file once; inside a folder or pattern sorted by bytes. A file that is named is taken
    whatever its extension; `say` is told in one line for each argument of files that are not. With `videos` the videos
    among them too. Raises `DatasetError` naming the first argument that matches nothing.
    """
    found: dict[Path, None] = {}
    for argument in patterns:
        pattern = os.fspath(argument)
        left_out = LeftOut()
        if os.path.isdir(pattern):
            matches = list(left_out.images(walk(pattern), videos=videos))
            fault = f"has no file that ends in {extensions()}"
        elif os.path.lexists(pattern):
            matches, fault = [pattern], ""
        else:
            hits = sorted(glob.glob(pattern, recursive=True), key=os.fsencode)
            files = (path for hit in hits for path in (walk(hit) if os.path.isdir(hit) else [hit]))
            matches = list(left_out.images(files, videos=videos))
            is_pattern = glob.has_magic(pattern)
            fault = "matches no image" if is_pattern else "does not exist"
        if not matches:
            raise DatasetError(
                f"'{pattern}' {fault}{left_out.advice}. Give image files, folders of them, or patterns such as "
                "'photos/*.jpg'."
            )
        left_out.tell(pattern, say)
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def tell_left_out(folders: Iterable[str | os.PathLike[str] | None], say: Say) -> None:
    """Say what is left out of folders that other processes will read; None and what is no folder is passed over."""
    for folder in folders:
        if folder is not None and os.path.isdir(folder):
            left_out = LeftOut()
            for _ in left_out.images(walk(os.fspath(folder))):
                pass
            left_out.tell(os.fspath(folder), say)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, without hidden entries and those of the system, sorted by the bytes of the name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not _is_hidden(e.name)), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        raise DatasetError(
            f"Cannot read the folder {folder}: {error.strerror or error}. Check the path and its permissions."
        ) from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


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
    """All files below a folder, without hidden ones and those of the system.

    A link back to a folder above it is not entered again. `on_error` is given every folder that cannot be read, and
    may return to go on without it.
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


def relative(path: str, root: str) -> str:
    """The path inside `root`, written alike on every system: what is hashed, sorted or kept must not depend on it."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def is_image(path: str) -> bool:
    """Whether a path is named like an image."""
    return ending(path) in image_endings()


def is_video(path: str) -> bool:
    """Whether a path is named like a video."""
    return ending(path) in VIDEO_ENDINGS


def ending(path: str) -> str:
    """What the name ends in, without capitals: ".jpg"; empty where there is no ending."""
    return os.path.splitext(path)[1].lower()


def file_size(path: str) -> int:
    """In bytes. Raises `DatasetError` for a file that is not there."""
    try:
        return os.stat(path).st_size
    except ValueError as error:
        raise DatasetError(f"{path!r} has a NUL byte, so it names no file. Correct what names it.") from error
    except OSError as error:
        link = " (a link to nothing)" if os.path.islink(path) else ""
        raise DatasetError(
            f"Cannot read {path}{link}: {error.strerror or error}. Restore the file, or remove it from the data set."
        ) from error


def check_text(paths: Iterable[object]) -> None:
    """Raise DatasetError for a name that is no Unicode, which no table, JSON or page can hold."""
    for path in map(str, paths):
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(
                f"{path!r} is no name in UTF-8, and what is to be written can hold no other. Rename the file."
            ) from error


def check_apart(output: Path, source: Path) -> None:
    """Raise UsageError for a place inside of the folder of images that is read: it would become one of its classes."""
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output} lies in {source}, whose folders are its classes. Name a place outside of it.")


def fold_name(name: str) -> str:
    """What a file system sees that ignores capitals and the ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, with the Unicode form of those that look the same and are not."""
    shapes = Counter(unicodedata.normalize("NFC", name) for name in names)
    return [f"{name}{_form(name)}" if shapes[unicodedata.normalize("NFC", name)] > 1 else name for name in names]


def without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of `names` that are not among `others`, in their order."""
    known = set(others)
    return [name for name in names if name not in known]


def check_known(names: Iterable[str], known: Sequence[str], *, source: object, otherwise: str) -> None:
    """Raise DatasetError for classes of `source` that the model does not know; `otherwise` to training with them."""
    if unknown := without(names, known):
        raise DatasetError(
            f"{source} has {plural(len(unknown), 'class')} that the {len(known)} known ones do not include: "
            f"{some(unknown, quoted=True)} (known: {some(known, quoted=True)}). The class map comes from the training "
            f"data: {otherwise}, or train with them.{look_alikes(unknown, known)}"
        )


def look_alikes(unknown: Sequence[str], known: Sequence[str]) -> str:
    """What to add to a message of names that are unknown, though some look like known ones."""
    shapes = {unicodedata.normalize("NFC", name): name for name in known}
    alike = [name for name in unknown if unicodedata.normalize("NFC", name) in shapes]
    if not alike:
        return ""
    other = shapes[unicodedata.normalize("NFC", alike[0])]
    return (
        f" '{alike[0]}'{_form(alike[0])} looks like the known '{other}'{_form(other)} and is written with other "
        "Unicode characters, as macOS stores names: rename it (convmv -t utf8 --nfc)."
    )


def _form(name: str) -> str:
    return next((f" ({form})" for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)), " (mixed Unicode)")


def extensions() -> str:
    """Those of images, for a message."""
    return " ".join(sorted(image_endings()))
