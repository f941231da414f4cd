"""The table of suites, and where they lie below a folder. Importing it needs no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hybridvit.errors import UsageError, nearest
from hybridvit.evaluate.corruptions.names import COMMON, GROUPS, SEVERITIES
from hybridvit.evaluate.suites.labels import Subset
from hybridvit.evaluate.suites.options import MADE

Layout = Literal["classes", "real", "corruptions", "made"]  # made: corruptions of clean images, as they are answered
_BAR: dict[str, tuple[float, ...]] = {
    "blue_noise_sample": (0.8, 1.6, 2.4, 4.0, 5.6),
    "brownish_noise": (1.0, 2.0, 3.0, 4.0, 5.0),
    "caustic_refraction": (2.35, 3.2, 4.9, 6.6, 9.15),
    "checkerboard_cutout": (2.0, 3.0, 4.0, 5.0, 6.0),
    "cocentric_sine_waves": (3.0, 5.0, 8.0, 9.0, 10.0),
    "inverse_sparkles": (1.0, 2.0, 4.0, 9.0, 10.0),
    "perlin_noise": (4.6, 5.2, 5.8, 7.6, 8.8),
    "plasma_noise": (4.75, 7.0, 8.5, 9.25, 10.0),
    "single_frequency_greyscale": (1.0, 1.5, 2.0, 4.5, 5.0),
    "sparkles": (1.0, 2.0, 3.0, 5.0, 6.0),
}
"""The strengths of ImageNet-C-bar by severity (facebookresearch/augmentation-corruption, imagenet_c_bar.csv): its
generator names folders by them, "2.35"; the archive that is given out has 1 to 5."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite: how its folder is laid out, and what its answers are judged by."""

    name: str
    title: str
    layout: Layout
    folders: tuple[str, ...] = ()  # official names of its root
    num_images: int | None = None  # published; of a corruption and severity where there are several
    subset: Subset | None = None  # of the 1,000 classes, which answers are restricted to
    corruptions: tuple[str, ...] = ()  # that must be there; empty: as found
    extra: tuple[str, ...] = ()  # that may be there
    strengths: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by corruption, in ascending order

    def severity_names(self, corruption: str) -> list[dict[str, int]]:
        """The ways to name the folders of severities: 1 to 5, and by strength where the suite has any."""
        by_strength = {f"{strength:.2f}": place for place, strength in enumerate(self.strengths.get(corruption, ()), 1)}
        return [{str(severity): severity for severity in SEVERITIES}, *([by_strength] if by_strength else [])]


def _v2(kind: str, folder: str) -> Suite:
    title = f"ImageNet-V2, {kind}"
    return Suite(name=f"v2-{kind}", title=title, layout="classes", folders=(folder,), num_images=10_000)


SUITES: dict[str, Suite] = {
    each.name: each
    for each in (
        Suite(name="imagenet", title="ImageNet", layout="classes", folders=("val",), num_images=50_000),
        _v2("matched", "imagenetv2-matched-frequency-format-val"),
        _v2("threshold", "imagenetv2-threshold0.7-format-val"),
        _v2("top", "imagenetv2-top-images-format-val"),
        Suite(name="real", title="ImageNet-ReaL", layout="real", num_images=50_000),
        Suite(name="a", title="ImageNet-A", layout="classes", folders=("imagenet-a",), num_images=7_500, subset="a"),
        Suite(name="r", title="ImageNet-R", layout="classes", folders=("imagenet-r",), num_images=30_000, subset="r"),
        Suite(
            name="sketch",
            title="ImageNet-Sketch",
            layout="classes",
            folders=("sketch", "imagenet-sketch"),
            num_images=50_889,
        ),
        Suite(
            name="c",
            title="ImageNet-C",
            layout="corruptions",
            folders=("imagenet-c",),
            num_images=50_000,
            corruptions=COMMON,
            extra=GROUPS["extra"],
        ),
        Suite(
            name="c-bar",
            title="ImageNet-C-bar",
            layout="corruptions",
            folders=("imagenet-c-bar", "ImageNet-C-Bar"),
            num_images=50_000,
            corruptions=tuple(_BAR),
            strengths=_BAR,
        ),
        Suite(name="3dcc", title="ImageNet-3DCC", layout="corruptions", folders=("imagenet-3dcc",)),
    )
}


def named_suites(words: Sequence[str], root: str | Path | None) -> list[tuple[Suite, Path]]:
    """The suites that words such as "a=FOLDER" ask for; one without "=" lies below `root`, or is with imagenet.

    A name that is no suite's is a folder of classes of one's own; "c=on-the-fly" is made of the images of imagenet.
    Without words: all that `root` has. Raises UsageError.
    """
    places = _below(root)
    if not words and not places:
        raise UsageError(f"{root} has no folder of a suite: {_official()}. Rename them, or say --suites NAME=FOLDER.")
    chosen: dict[str, tuple[Suite, Path]] = {}
    for name, equals, folder in (word.partition("=") for word in words or places):
        if name in chosen:
            raise UsageError(f"--suites names '{name}' twice. Leave one of them out.")
        if f"{name}{equals}{folder}" == MADE:
            chosen[name] = (replace(SUITES[name], layout="made"), _clean(chosen, places))
            continue
        if equals:
            own = Suite(name=name, title=name, layout="classes")
            if not name or not folder:
                raise UsageError(f"--suites has '{name}={folder}', but a suite is NAME=FOLDER. Write both.")
            chosen[name] = (SUITES.get(name, own), Path(folder).expanduser())
            continue
        if name not in SUITES:
            raise UsageError(f"There is no suite '{name}'. {nearest(name, SUITES)}. One's own folder is NAME=FOLDER.")
        place = places.get(name) or (chosen["imagenet"][1] if name == "real" and "imagenet" in chosen else None)
        if place is None:
            where = f"{root} has no folder of it" if root is not None else "nothing says where it lies"
            raise UsageError(f"The suite '{name}' is asked for, but {where}. Write {name}=FOLDER.")
        chosen[name] = (SUITES[name], place)
    return list(chosen.values())


def _clean(chosen: Mapping[str, tuple[Suite, Path]], places: Mapping[str, Path]) -> Path:
    if "imagenet" in chosen:
        return chosen["imagenet"][1]
    if "imagenet" in places:
        return places["imagenet"]
    raise UsageError(
        f"{MADE} corrupts the images of imagenet, but nothing says where they lie. Write imagenet=FOLDER before it."
    )


def is_severity(folder: str) -> bool:
    """Whether a folder is named like a severity: 1 to 5, or by a strength such as 2.35."""
    return re.fullmatch(r"[1-5]|\d{1,2}\.\d\d", folder) is not None


def is_own(suite: Suite) -> bool:
    """Whether the suite is a folder of a user's own, with the classes of the model."""
    return suite.name not in SUITES


def _below(root: str | Path | None) -> dict[str, Path]:
    if root is None:
        return {}
    base = Path(root).expanduser()
    found = {
        suite.name: base / folder for suite in SUITES.values() for folder in suite.folders if (base / folder).is_dir()
    }
    return found | ({"real": found["imagenet"]} if "imagenet" in found else {})


def _official() -> str:
    return ", ".join(folder for suite in SUITES.values() for folder in suite.folders)
