"""The classes of ImageNet-1k, which the published weights do not name.

A class name is that of its folder in the data set, a WordNet id such as "n01440764"; so it matches the folders in an
evaluation. People read its words.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

NUM_CLASSES = 1000


def class_names() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes, by index."""
    return tuple(_timm_info().label_names())


def in_words(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with each WordNet id of ImageNet-1k as words ("golden retriever"); other names stay."""
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return tuple(names)
    words = _timm_info().label_descriptions(as_dict=True)
    return tuple(words.get(name, name) for name in names)


@cache
def _timm_info() -> Any:
    from timm.data import ImageNetInfo  # a second: only those pay for it who meet such a class

    return ImageNetInfo("imagenet-1k")
