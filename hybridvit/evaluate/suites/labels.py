"""The class lists of the suites, from files that come with timm; timm itself, which takes seconds, is not imported."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from hybridvit.errors import UsageError

Subset = Literal["a", "r"]
NUM_CLASSES = 1000


def list_file(name: str) -> Path:
    """A file of timm's class lists. Raises UsageError where timm has none of that name."""
    spec = find_spec("timm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "_info" / name
        if path.is_file():
            return path
    raise UsageError(f"timm has no file {name}, which tells the classes of a suite. Install timm 1.0.29 or newer.")


@cache
def synsets() -> tuple[str, ...]:
    """The 1,000 WordNet ids of ImageNet-1k, in the order of their indices."""
    return tuple(list_file("imagenet_synsets.txt").read_text(encoding="utf-8").split())


@cache
def subset_synsets(subset: Subset) -> tuple[str, ...]:
    """The 200 WordNet ids of ImageNet-A or -R, in the order of their indices."""
    return tuple(list_file(f"imagenet_{subset}_synsets.txt").read_text(encoding="utf-8").split())


@cache
def subset_indices(subset: Subset) -> np.ndarray:
    """Their indices among the 1,000, int64 (200)."""
    return np.array(list_file(f"imagenet_{subset}_indices.txt").read_text(encoding="utf-8").split(), np.int64)


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """The right answers to each of the 50,000 validation images (Beyer et al. 2020); file number i is entry i - 1."""
    entries = json.loads(list_file("imagenet_real_labels.json").read_text(encoding="utf-8"))
    return tuple(tuple(entry) for entry in entries)
