"""How models look in the charts, and what they are called there.

Colours are Okabe and Ito's set, which the common forms of colour blindness keep apart, without its yellow, which is
not seen on white.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from hybridvit.charts.panels import Glyph, Series, Shape, Style

OURS = {  # family: name, colour
    "fastvit": ("FastViT", "#0072b2"),
    "fastervit": ("FasterViT", "#d55e00"),
    "swin_hat": ("Swin + HAT", "#009e73"),
}
COLOURS = ("#4d4d4d", "#cc79a7", "#e69f00", "#56b4e9")  # of the other families, in turn
GLYPHS: tuple[Glyph, ...] = ("", "dot", "cross", "x")  # and in them, once the colours are used up
SHAPES: dict[str, tuple[Shape, str]] = {  # training: outer shape, and what it means
    "plain": ("circle", "on ImageNet-1k alone"),
    "distilled": ("diamond", "distilled from a larger model"),
    "more data": ("square", "pretrained on more data"),
}
OURS_PX, OTHERS_PX = 11.0, 8.5


def family_name(family: str) -> str:
    """What a family is called in the legend."""
    return OURS[family][0] if family in OURS else family or "other"


def is_ours(record: Mapping[str, Any]) -> bool:
    """Of a family that this library implements, whoever's implementation was measured."""
    return record.get("family") in OURS


def styles_of(families: Iterable[str]) -> dict[str, Style]:
    """The look of each family, as trained plainly: ours first and filled, the others by name."""
    known = set(families)
    styles = {
        family: Style(colour=colour, filled=True, diameter_px=OURS_PX)
        for family, (_, colour) in OURS.items()
        if family in known
    }
    for index, family in enumerate(sorted(known - set(OURS))):
        glyph = GLYPHS[index // len(COLOURS) % len(GLYPHS)]
        styles[family] = Style(colour=COLOURS[index % len(COLOURS)], glyph=glyph, diameter_px=OTHERS_PX)
    return styles


def shape_of(training: str) -> Shape:
    """The outer shape of a mark by how the published weights were trained; unknown ways look plain."""
    return SHAPES.get(training, SHAPES["plain"])[0]


def training_key(trainings: Iterable[str]) -> list[Series]:
    """The legend of the shapes that occur."""
    known = set(trainings)
    return [
        Series(name=meaning, points=(), style=Style(colour="#222222", shape=shape, diameter_px=OTHERS_PX))
        for training, (shape, meaning) in SHAPES.items()
        if training in known
    ]


def short_labels(models: Mapping[str, str]) -> dict[str, str]:
    """Names short enough to write beside a point: without folder, tag and standard sizes, where that tells them apart.

    `models` are names with their training: models of one label and different shapes are told apart already.
    `swin_tiny_patch4_window7_224.ms_in1k` is `swin_tiny`, unless another of its training would be called so too.
    """
    labels: dict[str, str] = {}
    for shorten in (_shortest, _without_tag, str):
        proposed = {name: (shorten(name), shape_of(training)) for name, training in models.items()}
        counts = Counter(proposed.values())
        for name, label in proposed.items():
            if counts[label] == 1:
                labels.setdefault(name, label[0])
    return labels


def _without_tag(name: str) -> str:
    return re.split(r"[/\\]", name)[-1].split(".")[0]


def _shortest(name: str) -> str:
    return re.sub(r"_(patch|window)\d+|_\d{3}$", "", _without_tag(name))
