"""What is in the masks of a data set, and what of it a training would trip over."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hybridvit.data.check_report import Finding, Severity, finding
from hybridvit.data.decode import ImageSource, size_of, turned
from hybridvit.errors import ImageDecodeError, some
from hybridvit.tasks.segment.classes import Classes, Map, class_map, raw_reading
from hybridvit.tasks.segment.config import SegmentData
from hybridvit.tasks.segment.masks import Colour, Reading, nearest_colour, read_values

Size = tuple[int, int]  # width, height
_MOST_COLOURS = 50  # that no list has, kept of one mask


class MaskFacts(NamedTuple):
    """What one mask has, and what its picture says of itself."""

    counts: Mapping[int, int]  # pixels of each value that stands for something
    size: Size = (0, 0)
    picture_size: Size = (0, 0)  # as stored
    orientation: int = 1  # of the picture, as EXIF says
    unlisted: Mapping[Colour, int] = {}  # pixels of colours that are listed nowhere
    kind: str = ""
    palette: tuple[Colour, ...] = ()
    fault: str = ""  # why the mask cannot be read

    @property
    def fits(self) -> bool:
        """Whether the mask has the size of its picture, stored or upright."""
        return self.size in (self.picture_size, turned(self.picture_size, self.orientation))


class Part(NamedTuple):
    """A split, with the names of its masks and what is in them."""

    name: str
    masks: Sequence[str]
    facts: Sequence[MaskFacts]

    def named(self, tells: Callable[[MaskFacts], str]) -> list[str]:
        """What `tells` says of each mask of which it says something, behind its name."""
        found = zip(self.masks, map(tells, self.facts), strict=True)
        return [f"{mask}: {text}" for mask, text in found if text]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The classes of a set of masks, and what there is to say of it."""

    map: Map
    findings: Sequence[Finding]


def look_at(picture: ImageSource, mask: ImageSource, reading: Reading, *, name: str = "") -> MaskFacts:
    """What is in a mask; a picture that cannot be read has its own finding, and fits here."""
    try:
        found = read_values(mask, reading, name=name)
    except ImageDecodeError as error:
        return MaskFacts(counts={}, fault=str(error))
    numbers = found.values[found.values >= 0]
    counts = Counter[int]()
    if numbers.size:
        values, pixels = np.unique(numbers, return_counts=True) if numbers.max() > 65535 else _counted(numbers)
        counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    height, width = found.values.shape
    try:
        picture_size, orientation = size_of(picture)
    except ImageDecodeError:
        picture_size, orientation = (width, height), 1
    unlisted = dict(Counter(found.unlisted).most_common(_MOST_COLOURS))
    return MaskFacts(counts, (width, height), picture_size, orientation, unlisted, found.kind, found.palette)


def _counted(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `np.unique` counts, in less time, for which small numbers are needed."""
    counts = np.bincount(numbers)
    values = np.flatnonzero(counts)
    return values, counts[values]


def look_at_all(
    pairs: Sequence[tuple[ImageSource, ImageSource, str]], reading: Reading, *, workers: int
) -> list[MaskFacts]:
    """`look_at` each picture with its mask and its name, which are asked for one by one, in as many threads."""

    def look(number: int) -> MaskFacts:
        picture, mask, name = pairs[number]
        return look_at(picture, mask, reading, name=name)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(look, range(len(pairs))))


def survey(parts: Sequence[Part], classes: Classes | None, data: SegmentData, *, kind: str = "") -> Survey:
    """What the masks of all splits, that to train on first, have and lack."""
    total = Counter[int]()
    for part in parts:
        for facts in part.facts:
            total.update(facts.counts)
    found = class_map(classes, data, sorted(total), kind)
    if not found.palette:
        found = Map(names=found.names, reading=found.reading, palette=_palette(parts, found.reading))
    known = len(classes.names) if classes else None
    listed = [colour for colour, _ in raw_reading(classes).colours]
    asks = _binary(total, data)
    findings = [
        *_unreadable(parts, data),
        *_sizes(parts),
        *_turned(parts),
        *_colours(parts, listed),
        *asks,
        *([] if asks else _outside(parts, found)),
        *([] if asks else _absent(parts, found, data)),
        *_histogram(total, data, known),
    ]
    return Survey(map=found, findings=findings)


def _palette(parts: Sequence[Part], reading: Reading) -> tuple[Colour, ...]:
    """The colours that the first mask with a palette has for the classes, if it has all of them."""
    palette = next((facts.palette for part in parts for facts in part.facts if facts.palette), ())
    if reading.values and max(reading.values) < len(palette):
        return tuple(palette[value] for value in reading.values)
    return ()


def _all(parts: Sequence[Part], tells: Callable[[MaskFacts], str]) -> list[str]:
    return [text for part in parts for text in part.named(tells)]


def _unreadable(parts: Sequence[Part], data: SegmentData) -> list[Finding]:
    texts = [facts.fault for part in parts for facts in part.facts if facts.fault]
    severity: Severity = "warning" if data.on_bad_image == "skip" else "error"
    return finding(severity, "bad-mask", "Masks that cannot be read", texts)


def _sizes(parts: Sequence[Part]) -> list[Finding]:
    def tells(facts: MaskFacts) -> str:
        if facts.fault or facts.fits:
            return ""
        (width, height), (wide, high) = facts.size, turned(facts.picture_size, facts.orientation)
        return f"{width}x{height}, its picture {wide}x{high}"

    what, fix = "Masks of another size than their picture", "Save each mask in the size of its picture."
    return finding("error", "mask-size", what, _all(parts, tells), fix=fix)


def _turned(parts: Sequence[Part]) -> list[Finding]:
    def stored(facts: MaskFacts) -> str:
        upright = turned(facts.picture_size, facts.orientation)
        is_stored = facts.size == facts.picture_size != upright
        return f"EXIF orientation {facts.orientation}" if is_stored else ""

    def ambiguous(facts: MaskFacts) -> str:
        same = facts.picture_size == turned(facts.picture_size, facts.orientation)
        return f"EXIF orientation {facts.orientation}" if facts.orientation > 1 and same and facts.fits else ""

    drawn = "Masks drawn on the picture as it is stored, which are turned with it"
    doubt, fix = "Turned pictures whose mask fits either way, and is taken to be upright", "If it is not, turn it."
    return [
        *finding("note", "mask-turned", drawn, _all(parts, stored)),
        *finding("warning", "mask-ambiguous", doubt, _all(parts, ambiguous), fix=fix),
    ]


def _colours(parts: Sequence[Part], listed: Sequence[Colour]) -> list[Finding]:
    def tells(facts: MaskFacts) -> str:
        if not facts.unlisted:
            return ""
        colour, pixels = next(iter(facts.unlisted.items()))
        more = f", and {len(facts.unlisted) - 1} more colours" if len(facts.unlisted) > 1 else ""
        lossy = "; JPEG changes colours: save masks as PNG" if facts.kind == "JPEG" else ""
        return f"{pixels:,} pixels of {list(colour)}, nearest {list(nearest_colour(colour, listed))}{more}{lossy}"

    fix = "List them in palette.json, or save the masks again in the listed colours, as PNG."
    return finding("error", "unlisted-colour", "Masks with colours that are not listed", _all(parts, tells), fix=fix)


def _binary(total: Mapping[int, int], data: SegmentData) -> list[Finding]:
    if set(total) != {0, 255} or data.binary or data.ignore_label != 255:
        return []
    fix = "Set --data.binary to foreground if 255 is the second class, or to ignore if it is pixels of no class."
    values = [f"{value}: {total[value]:,} pixels" for value in sorted(total)]
    return finding(
        "error", "binary", "Values in all masks, 0 and 255 alone, of which 255 may mean two things", values, fix=fix
    )


def _outside(parts: Sequence[Part], found: Map) -> list[Finding]:
    known = {*found.reading.values, *found.reading.ignored}

    def tells(facts: MaskFacts) -> str:
        values = {value: pixels for value, pixels in facts.counts.items() if value not in known}
        lossy = "; JPEG changes values: save masks as PNG" if values and facts.kind == "JPEG" else ""
        return some([f"{value} ({pixels:,} pixels)" for value, pixels in values.items()]) + lossy

    lowest, highest = min(found.reading.values, default=0), max(found.reading.values, default=0)
    what = f"Masks with values that are no class: the {len(found.names)} classes have {lowest} to {highest}"
    fix = (
        "Name all classes in classes.txt, or what belongs to none: --data.ignore_label, or --data.reduce_zero_label "
        "true if that is 0."
    )
    return finding("error", "outside", what, _all(parts, tells), fix=fix)


def _absent(parts: Sequence[Part], found: Map, data: SegmentData) -> list[Finding]:
    findings = []
    for number, part in enumerate(parts):
        seen = {value for facts in part.facts for value in facts.counts}
        absent = [name for name, value in zip(found.names, found.reading.values, strict=True) if value not in seen]
        if number == 0:
            fix = (
                "Add masks that have them, take them from the list of classes, set --data.reduce_zero_label true if 0 "
                "is no class, or train all the same: --data.allow_absent true."
            )
            severity: Severity = "warning" if data.allow_absent else "error"
            what = f"Classes without a pixel in {part.name or 'the masks'}"
            findings += finding(severity, "absent-class", what, absent, fix=fix)
        else:
            what = f"Classes without a pixel in {part.name}, so that nothing is known of them there"
            findings += finding("warning", "class-not-judged", what, absent)
    return findings


def _histogram(total: Mapping[int, int], data: SegmentData, known: int | None) -> list[Finding]:
    """How many classes there are if 0 is one, and if it stands for none."""
    pixels, others = sum(total.values()), [value for value in total if value != data.ignore_label]
    if not others or data.binary:
        return []
    shares = [f"value {value}: {100 * total[value] / pixels:.2f} % of all pixels" for value in sorted(total)]
    named = f"; {known} are named" if known else ""
    highest = max(others)
    lines = [
        f"with --data.reduce_zero_label false: {highest + 1} classes, 0 to {highest}",
        f"with --data.reduce_zero_label true: {highest} classes, 1 to {highest}",
        *shares,
    ]
    now = "true" if data.reduce_zero_label else "false"
    what = f"Values in the masks (reduce_zero_label is {now}{named})"
    return [Finding("note", "histogram", what, len(total), tuple(lines), len(lines))]
