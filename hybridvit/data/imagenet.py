"""The classes of ImageNet-1k, which the published weights do not name.

A class name is that of its folder in the data set, a WordNet id such as "n01440764"; so it matches the folders in an
evaluation. People read its words.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

NUM_CLASSES = 1000


def class_names() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes, by index."""
    return tuple(_words_by_id())


def in_words(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with each WordNet id of ImageNet-1k as words ("golden retriever"); other names stay."""
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return tuple(names)
    words = _words_by_id()
    return tuple(words.get(name, name) for name in names)


@cache
def _words_by_id() -> Mapping[str, str]:
    """A table of our own: whoever runs an exported file need not have timm, nor wait until it is imported."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return MappingProxyType(dict(rows))
