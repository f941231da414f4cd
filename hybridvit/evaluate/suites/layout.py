"""The images of a suite with their right answers, from its official layout; faults are told before one is decoded."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hybridvit.card import Preprocessing
from hybridvit.data.decode import decode
from hybridvit.data.encoded import OnBadImage
from hybridvit.data.folder import ImageFolder
from hybridvit.data.listing import Listing
from hybridvit.data.samples import Samples
from hybridvit.data.scan import LeftOut, Say, file_size, quiet, relative, subfolders, walk, without
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import DatasetError, ImageDecodeError, plural, some
from hybridvit.evaluate.corruptions.corrupt import opened_package
from hybridvit.evaluate.corruptions.names import GROUPS, SEVERITIES, StoredAs
from hybridvit.evaluate.corruptions.stored import OFFICIAL, AsStored
from hybridvit.evaluate.suites.class_map import class_indices
from hybridvit.evaluate.suites.labels import Subset, real_labels
from hybridvit.evaluate.suites.suites import Suite, is_severity

NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+", re.IGNORECASE)
"""The name of a validation image."""
V2_IMAGES_PER_CLASS = 10
MILLISECONDS_EACH = 23
"""To corrupt an image of 224 pixels, the mean over the 15 common corruptions."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is answered in one pass: a suite, or one severity of one of its corruptions.

    `identities` names the images alike in all parts of a suite: the versions of one image are one cluster.
    """

    suite: str
    title: str  # "a", "c/fog/3"
    identities: tuple[str, ...]
    right: np.ndarray  # int64, n × most: the right answers to each image, in the numbers of `subset`, padded with -1
    subset: Subset | None
    listing: Listing[int]  # the files, with the first right answer to each
    samples: Callable[[Preprocessing], Samples]  # the images, prepared so
    side_px: Callable[[], tuple[int, int]]  # height, width of the first image that can be decoded
    corruption: str = ""
    severity: int = 0
    made: str = ""  # how, of corrupted images that lie in no folder


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of a suite's images are answered."""

    share: float = 1.0  # of the images, by a hash of their names
    images_per_class: int | None = None
    partial: bool = False  # corruptions and severities may be missing
    only: tuple[str, ...] = ()  # corruptions
    on_bad_image: OnBadImage = "error"
    stored: StoredAs = "jpeg"  # what corrupted images that are made here are kept as


ALL = Choice()


def nothing_decodes(title: str) -> DatasetError:
    """The error of a part of which no image can be shown to a model."""
    return DatasetError(f"No image of {title} can be decoded. Unpack the archive anew.")


def open_suite(
    suite: Suite, folder: Path, names: Sequence[str], choice: Choice = ALL, *, say: Say = quiet
) -> list[Part]:
    """The parts of a suite; `names` are the model's classes, for a folder of one's own.

    `say` is told of what is unusual and no fault. Raises DatasetError with name, count, the first three and the fix.
    """
    if not folder.is_dir():
        raise DatasetError(f"The suite '{suite.name}' is to lie in {folder}, which is no folder. Check the path.")
    if suite.layout == "real":
        return [_real(suite, folder, choice, say)]
    if suite.layout == "classes":
        return [_classes(suite, folder, suite.name, names, choice, say)]
    if suite.layout == "made":
        return _made(suite, _classes(suite, folder, suite.name, (), choice, say), choice, say)
    parts = []
    for corruption, place in _corruptions(suite, folder, choice).items():
        severities = _severities(suite, place, corruption, choice)
        parts += [_corrupted(suite, place / name, corruption, severity, choice, say) for name, severity in severities]
    _check_same_files(parts, folder)
    if choice.share == 1 and choice.images_per_class is None and len(parts[0].identities) != suite.num_images:
        said = "" if suite.num_images is None else f", but {suite.num_images:,} were published"
        say(f"{suite.name}: {len(parts)} parts of {len(parts[0].identities):,} images{said}.")
    return parts


def _classes(suite: Suite, folder: Path, title: str, names: Sequence[str], choice: Choice, say: Say) -> Part:
    root = str(folder)
    indices = class_indices(suite, root, names)
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    left_out = LeftOut()
    for name, index in indices.items():
        images = list(left_out.images(walk(os.path.join(root, name))))
        paths += images
        labels += [index] * len(images)
        if not images:
            empty.append(name)
    if empty:
        raise DatasetError(
            f"{root} has {plural(len(empty), 'class')} without images: {some(empty, 3, quoted=True)}. Unpack the "
            "archive anew."
        )
    left_out.tell(root, say)
    if suite.layout == "classes":
        _tell_counts(suite, title, Counter(labels), say)
    identities = [relative(path, root) for path in paths]
    return _part(suite, title, root, paths, identities, [(label,) for label in labels], choice, names)


def _corrupted(suite: Suite, place: Path, corruption: str, severity: int, choice: Choice, say: Say) -> Part:
    part = _classes(suite, place, f"{suite.name}/{corruption}/{severity}", (), choice, say)
    return replace(part, corruption=corruption, severity=severity)


def _made(suite: Suite, clean: Part, choice: Choice, say: Say) -> list[Part]:
    """All versions of clean images, each made when it is answered: equal to those that `hybridvit corrupt` writes.

    Raises UsageError where the extra `robustness` is missing.
    """
    opened_package()
    known = (*suite.corruptions, *suite.extra)
    if unknown := without(choice.only, known):
        raise DatasetError(f"--only names {some(unknown, 3, quoted=True)}, but the corruptions are {some(known)}.")
    names = [name for name in known if name in (choice.only or suite.corruptions)]
    total = len(clean.identities) * len(names) * len(SEVERITIES)
    hours = total * MILLISECONDS_EACH / 3.6e6
    say(f"{suite.name}: {total:,} corrupted images are made, some {hours:.1f} hours of one core for each preparation.")
    how = f"made on the fly, {'JPEG 85' if choice.stored == 'jpeg' else 'not compressed'}"
    package = version("imagecorruptions-imaug")

    def part(name: str, severity: int) -> Part:
        change = AsStored(name, severity, root=clean.listing.root, stored=choice.stored)

        def samples(preprocessing: Preprocessing) -> Samples:
            found = clean.samples(preprocessing)
            found.change = change
            return found

        return replace(
            clean,
            title=f"{suite.name}/{name}/{severity}",
            listing=replace(clean.listing, fingerprint=f"{clean.listing.fingerprint} ({how}, {package})"),
            samples=samples,
            side_px=lambda: OFFICIAL.image_size,
            corruption=name,
            severity=severity,
            made=how,
        )

    return [part(name, severity) for name in names for severity in SEVERITIES]


def _real(suite: Suite, folder: Path, choice: Choice, say: Say) -> Part:
    root, left_out = str(folder), LeftOut()
    images = sorted(left_out.images(walk(root)), key=os.fsencode)
    left_out.tell(root, say)
    matches = [NUMBERED.fullmatch(os.path.basename(path)) for path in images]
    numbers = [int(match[1]) if match else 0 for match in matches]
    known = real_labels()
    unnamed = [
        os.path.basename(path) for path, number in zip(images, numbers, strict=True) if not 1 <= number <= len(known)
    ]
    if unnamed or not images:
        raise DatasetError(
            f"ReaL tells the right answers by file names ILSVRC2012_val_00000001.JPEG to {len(known):08d}, but "
            f"{len(unnamed)} of {len(images)} images in {root} are named otherwise: {some(unnamed, 3) or 'none'}. Give "
            "the validation images under their own names."
        )
    twice = [f"{number:08d}" for number, count in Counter(numbers).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{root} has more than one copy of {plural(len(twice), 'image')}: {some(twice, 3)}. Remove them."
        )
    counted = [place for place, number in enumerate(numbers) if known[number - 1]]
    if not counted:
        raise DatasetError(
            f"None of the {len(images):,} images in {root} has a right answer in ReaL. Give the whole validation set."
        )
    say(f"real: {len(images) - len(counted):,} of {len(images):,} images have no right answer, and count neither way.")
    if len(images) != suite.num_images:
        say(f"real: {root} has {len(images):,} images, but {suite.num_images:,} were published.")
    paths = [images[place] for place in counted]
    right = [known[numbers[place] - 1] for place in counted]
    return _part(suite, suite.name, root, paths, [os.path.basename(path) for path in paths], right, choice, ())


def _part(
    suite: Suite,
    title: str,
    root: str,
    paths: Sequence[str],
    identities: Sequence[str],
    right: Sequence[tuple[int, ...]],
    choice: Choice,
    names: Sequence[str],
) -> Part:
    kept = _chosen(identities, [answers[0] for answers in right], choice)
    digest = hashlib.sha256(f"{choice.share} {choice.images_per_class}".encode())
    for place in kept:
        digest.update(os.fsencode(identities[place]) + b"\0%d\0" % file_size(paths[place]))
    most = max(len(right[place]) for place in kept)
    padded = np.full((len(kept), most), -1, np.int64)
    for row, place in enumerate(kept):
        padded[row, : len(right[place])] = right[place]
    listing = Listing(
        root=root,
        paths=tuple(paths[place] for place in kept),
        labels=tuple(right[place][0] for place in kept),
        class_names=tuple(names),
        fingerprint=digest.hexdigest(),
    )

    def samples(preprocessing: Preprocessing) -> Samples:
        return ImageFolder(listing, transform=EvalTransform(preprocessing), on_bad_image=choice.on_bad_image)

    def side_px() -> tuple[int, int]:
        for path in listing.paths:
            try:
                width, height = decode(path).facts.size
                return height, width
            except ImageDecodeError:
                if choice.on_bad_image == "error":
                    raise
        raise nothing_decodes(title)

    return Part(
        suite=suite.name,
        title=title,
        identities=tuple(identities[place] for place in kept),
        right=padded,
        subset=suite.subset,
        listing=listing,
        samples=samples,
        side_px=side_px,
    )


def _chosen(identities: Sequence[str], labels: Sequence[int], choice: Choice) -> list[int]:
    """The places of the images that are answered: the hash of a name decides, so that all corruptions have the same."""
    ranks = [int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) for name in identities]
    kept = sorted(range(len(ranks)), key=ranks.__getitem__)[: max(1, round(choice.share * len(ranks)))]
    if choice.images_per_class is not None:
        seen = Counter[int]()
        few = []
        for place in kept:
            seen[labels[place]] += 1
            if seen[labels[place]] <= choice.images_per_class:
                few.append(place)
        kept = few
    return sorted(kept)


def _tell_counts(suite: Suite, title: str, per_class: Counter[int], say: Say) -> None:
    total = per_class.total()
    if suite.num_images not in (None, total):
        say(f"{title}: {total:,} images, but {suite.num_images:,} were published.")
    odd = [str(label) for label, count in per_class.items() if count != V2_IMAGES_PER_CLASS]
    if suite.name.startswith("v2-") and odd:
        say(
            f"{title}: in {plural(len(odd), 'class')} the number of images is not {V2_IMAGES_PER_CLASS} "
            f"({some(odd, 3)}); an old archive had 20."
        )


def corruption_folders(folder: Path) -> dict[str, Path]:
    """The folders that may be corruptions, by name, with or without the level that the archives unpack to."""
    found: dict[str, Path] = {}
    for name in subfolders(str(folder)):
        inside = subfolders(str(folder / name))
        if name in GROUPS and not any(map(is_severity, inside)):
            found |= {each: folder / name / each for each in inside}
        else:
            found[name] = folder / name
    return found


def _corruptions(suite: Suite, folder: Path, choice: Choice) -> dict[str, Path]:
    """Those of the suite that are asked for, in its order."""
    found = corruption_folders(folder)
    wanted = (*suite.corruptions, *suite.extra)
    if not set(found) & set(wanted) if wanted else not any(map(_has_levels, found.values())):
        _propose(suite, folder, wanted)
    if wanted and (unknown := without(found, wanted)):
        raise DatasetError(
            f"{folder} has {plural(len(unknown), 'folder')} named like no corruption of '{suite.name}': "
            f"{some(unknown, 3, quoted=True)}. Move them away, or read them as a suite of their own: NAME=FOLDER."
        )
    if unknown := without(choice.only, found):
        raise DatasetError(f"--only names {some(unknown, 3, quoted=True)}, but {folder} has {some([*found])}.")
    required = choice.only or suite.corruptions
    missing = without(required, found)
    if missing and not choice.partial:
        raise DatasetError(
            f"{folder} lacks {len(missing)} of the {len(required)} corruptions of '{suite.name}': {some(missing, 3)}. "
            "Unpack them too, take what is there with --partial, or evaluate some with --only: both give no mCE."
        )
    order = [*wanted, *without(found, wanted)]
    return {name: found[name] for name in order if name in found and (not choice.only or name in choice.only)}


def _propose(suite: Suite, folder: Path, wanted: Sequence[str]) -> None:
    """Raise DatasetError for a folder without corruptions, with the one that has them where it is near."""
    near = [folder.parent, *(folder / name for name in subfolders(str(folder)))]
    inside = {each: corruption_folders(each) for each in near}
    if wanted:
        right = next((each for each, found in inside.items() if set(found) & set(wanted)), None)
    else:
        right = next((each for each, found in inside.items() if any(map(_has_levels, found.values()))), None)
    rule = f"They are named like {some(wanted, 3, quoted=True)}." if wanted else "Each holds folders 1 to 5."
    raise DatasetError(f"{folder} has no corruption of '{suite.name}'. {f'Did you mean {right}?' if right else rule}")


def _has_levels(place: Path) -> bool:
    return any(map(is_severity, subfolders(str(place))))


def _severities(suite: Suite, place: Path, corruption: str, choice: Choice) -> list[tuple[str, int]]:
    """The folders of a corruption's severities with these, in ascending order."""
    there = subfolders(str(place))
    ways = suite.severity_names(corruption)
    number_of = max(ways, key=lambda names: len(names.keys() & set(there)))
    if unknown := without(there, number_of):
        raise DatasetError(
            f"{place} has {plural(len(unknown), 'folder')} named like no severity: {some(unknown, 3, quoted=True)}. "
            f"Those are named {' or '.join(f'{next(iter(names))} to {[*names][-1]}' for names in ways)}: move "
            "others away."
        )
    missing = without(number_of, there)
    if missing and not (choice.partial and there):
        raise DatasetError(
            f"{place} lacks the severities {', '.join(missing)}. Unpack them too, or take what is there with "
            "--partial, which gives no mCE."
        )
    return [(name, severity) for name, severity in number_of.items() if name in there]


def _check_same_files(parts: Sequence[Part], folder: Path) -> None:
    """Raise DatasetError where a version of an image is missing: they are one cluster, and paired."""
    first = set(parts[0].identities)
    for part in parts[1:]:
        if differing := sorted(first ^ set(part.identities)):
            raise DatasetError(
                f"{folder} has other files in {part.title} than in {parts[0].title}: {len(differing)} are in one "
                f"alone: {some(differing, 3)}. Unpack the archive anew."
            )
