"""Corrupted copies of an image folder as files, in the layout of ImageNet-C: corruption/severity/class/file."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from hybridvit.atomic import check_writable, replacing, write_text
from hybridvit.card import Preprocessing
from hybridvit.data.decode import ImageChange, decode_image
from hybridvit.data.listing import Listing
from hybridvit.data.preprocess import cut
from hybridvit.data.processes import in_processes
from hybridvit.data.scan import check_apart, relative
from hybridvit.errors import DatasetError, UsageError, some
from hybridvit.evaluate.corruptions.corrupt import corrupt, opened_package
from hybridvit.evaluate.corruptions.names import StoredAs

OFFICIAL = Preprocessing(
    image_size=(224, 224),
    crop_fraction=0.875,
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
"""ImageNet-C's geometry: shorter side to 256 pixels, bilinear, and the centre of 224."""
JPEG_QUALITY = 85
RECORD = ".hybridvit-corruptions.json"
JPEG_ENDINGS = (".jpg", ".jpeg")
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """What all files of an output folder have in common: others are not written beside them."""

    stored: StoredAs
    seed: int
    images: str  # the fingerprint of the folder they were made of
    package: str  # the version of imagecorruptions-imaug


@dataclass(frozen=True, kw_only=True)
class Work:
    """The corrupted copies of each picture: those that are there already are left alone."""

    root: str
    output: str
    stored: StoredAs
    seed: int
    versions: tuple[tuple[str, int], ...]  # corruption, severity

    def __call__(self, path: str) -> tuple[int, int]:
        """How many copies were written, and how many were there."""
        key = relative(path, self.root)
        targets = {
            each: Path(self.output, each[0], str(each[1]), target_name(key, self.stored)) for each in self.versions
        }
        absent = {each: target for each, target in targets.items() if not target.exists()}
        if absent:
            picture = cut(decode_image(path), OFFICIAL)
            for (name, severity), target in absent.items():
                changed = corrupt(picture, name, severity, key, seed=self.seed)
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary:
                    temporary.write_bytes(encoded(changed, self.stored))
        return len(absent), len(targets) - len(absent)


class Cut(ImageChange):
    """A picture in ImageNet-C's geometry, not corrupted."""

    def __call__(self, image: Image.Image, path: str) -> Image.Image:
        return cut(image, OFFICIAL)


class AsStored(ImageChange):
    """A picture as the file of its corrupted copy gives it: cut, corrupted and encoded, without a disk."""

    def __init__(self, name: str, severity: int, *, root: str, stored: StoredAs, seed: int = 0) -> None:
        """`root` is the folder of the data set: where it lies changes no pixel."""
        self.name, self.severity, self.root, self.stored, self.seed = name, severity, root, stored, seed

    def __call__(self, image: Image.Image, path: str) -> Image.Image:
        changed = corrupt(cut(image, OFFICIAL), self.name, self.severity, relative(path, self.root), seed=self.seed)
        return changed if self.stored == "raw" else decode_image(encoded(changed, self.stored))


def encoded(picture: Image.Image, stored: StoredAs) -> bytes:
    """The bytes of a file: JPEG of quality 85 as ImageNet-C's are, or PNG, which keeps every pixel."""
    buffer = BytesIO()
    if stored == "jpeg":
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def target_name(key: str, stored: StoredAs) -> str:
    """The path of a copy below its severity: that of the picture, with an ending for what the file is."""
    path = PurePosixPath(key)
    if stored == "raw":
        return str(path.with_suffix(".png"))
    return key if path.suffix.lower() in JPEG_ENDINGS else str(path.with_suffix(".jpg"))


def write_corrupted(
    listing: Listing[int],
    output: Path,
    *,
    names: Sequence[str],
    severities: Sequence[int],
    stored: StoredAs = "jpeg",
    seed: int = 0,
    workers: int = 0,
    advance: Advance = lambda count: None,
) -> tuple[int, int]:
    """Write output/<corruption>/<severity>/<class>/<file>; how many files were written, and how many were there.

    Each file appears whole or not at all, and equal ones come from any number of workers; an interrupted run goes on
    where it was. `advance` is told of files that are done. Raises UsageError for a folder with other contents, or
    written with other options, or where two pictures would have one name; DatasetError for a file that is no image.
    """
    opened_package()
    check_names(listing, stored)
    options = CopyOptions(
        stored=stored, seed=seed, images=listing.fingerprint, package=version("imagecorruptions-imaug")
    )
    check_output(output, listing.root, options)
    output.mkdir(exist_ok=True)
    write_text(output / RECORD, json.dumps(asdict(options), indent=1) + "\n")
    versions = tuple((name, severity) for name in names for severity in severities)
    work = Work(root=listing.root, output=str(output), stored=stored, seed=seed, versions=versions)
    written = there = 0
    for new, old in in_processes(work, listing.paths, workers=workers, lost=_lost):
        written, there = written + new, there + old
        advance(new + old)
    return written, there


def check_names(listing: Listing[int], stored: StoredAs) -> None:
    """Raise UsageError where two pictures would become one file."""
    seen = dict[str, str]()
    for path in listing.paths:
        key = relative(path, listing.root)
        other = seen.setdefault(target_name(key, stored), key)
        if other != key:
            raise UsageError(f"{other} and {key} would both become {target_name(key, stored)}. Rename one of them.")


def check_output(output: Path, root: str, options: CopyOptions) -> None:
    """Raise UsageError for a place that takes no such files."""
    check_apart(output, Path(root))
    check_writable(output, is_folder=True)
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"{output} is a file, but a folder is to be written there. Name another place.")
    record = output / RECORD
    if not record.exists():
        if there := [each.name for each in output.iterdir()]:
            raise UsageError(
                f"{output} has other contents ({some(sorted(there), 3)}), and copies are not mixed with them. Name an "
                "empty or a new folder."
            )
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = {key: (before[key], value) for key, value in asdict(options).items() if before[key] != value}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{record} is damaged, so what is in {output} is not known. Name a new folder.") from error
    if changed:
        told = "; ".join(f"{key} was {old}, and is {new}" for key, (old, new) in changed.items())
        raise UsageError(f"{output} was begun with other options ({told}). Give those, or name a new folder.")


def _lost(path: str) -> tuple[int, int]:
    raise DatasetError(
        f"The process that corrupted {path} or a picture beside it was ended: most often memory is full. Use fewer "
        "--workers; what is written stays, and the same command goes on."
    )
