"""Our parameter names and those of others: which naming a file uses, and its tensors under the other names."""

import re
from collections.abc import Collection
from importlib import import_module
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from hybridvit.card import Form
from hybridvit.errors import CheckpointError
from hybridvit.models.key_map import KeyMap
from hybridvit.models.registry import FAMILIES

Naming = str  # "ours", or a key of KEY_MAPS
Value = TypeVar("Value")

IN_PYRAMID = "pyramid.backbone."
"""What stands before our names of a backbone in a model with a head."""

_NAMES: dict[str, Any] = {family: import_module(row.names) for family, row in FAMILIES.items()}
KEY_MAPS: dict[str, KeyMap] = {naming: names for family in _NAMES.values() for naming, names in family.KEY_MAPS.items()}
"""By naming; the first that recognises a file's names is its."""


def is_known(names: Collection[str]) -> bool:
    """Whether these are the names of a model of this library, its own or an upstream's, from the first part on."""
    return any(key_map.recognises(names) for key_map in KEY_MAPS.values()) or any(
        re.match(r"(stem|stages)\.", name) for name in names
    )


def naming_of(names: Collection[str], source: object = "The source") -> Naming:
    """Which naming a file uses, from its keys. Raises CheckpointError, naming `source`, if none of those known."""
    for naming, key_map in KEY_MAPS.items():
        if key_map.recognises(names):
            return naming
    if any(re.match(r"(stem|stages|head|expand|pyramid)\.", name) for name in names):
        return "ours"
    shown = ", ".join(f"'{name}'" for name in list(names)[:5])
    known = ", ".join(key_map.title for key_map in KEY_MAPS.values())
    raise CheckpointError(
        f"{source} holds no weights of these models: its names ({shown}, {len(names)} in all) are neither hybridvit's "
        f"own, nor those of {known}. Check that this is the right file."
    )


def start_of(naming: Naming) -> str:
    """What a file in this naming is a start from; empty if it holds a whole model."""
    return "" if naming == "ours" else KEY_MAPS[naming].start


def family_of(names: Collection[str]) -> str:
    """The family whose tensors have these names, which are ours; the first of all for names that none knows."""
    inside = _inside(names)
    return next((family for family, known in _NAMES.items() if known.is_ours(inside)), next(iter(_NAMES)))


def form_of(names: Collection[str]) -> Form:
    """training, released or folded, from our names."""
    return _NAMES[family_of(names)].form_of(_inside(names))


def _inside(names: Collection[str]) -> list[str]:
    """The names without what a model with a head puts before those of its backbone."""
    return [name.removeprefix(IN_PYRAMID) for name in names]


def to_ours(tensors: dict[str, Value], naming: Naming, source: object = "The source") -> dict[str, Value]:
    """`tensors` under our names, in the same order, without what follows from the others.

    A name without a translation is kept, for the caller's report of keys. Raises CheckpointError, naming `source`, if
    two names of one tensor hold different values.
    """
    if naming == "ours":
        return dict(tensors)
    renamed: dict[str, Value] = {}
    first_names: dict[str, str] = {}
    key_map = KEY_MAPS[naming]
    for theirs, ours in key_map.to_ours(tensors).items():
        value: Any = tensors[theirs]
        if isinstance(value, Tensor):
            value = key_map.value(theirs, value)
        if ours in renamed and not _equal(renamed[ours], value):
            raise CheckpointError(
                f"{source}: '{first_names[ours]}' and '{theirs}' are two names of one tensor, but hold different "
                "values. The file was edited or is damaged: use another copy."
            )
        renamed.setdefault(ours, value)
        first_names.setdefault(ours, theirs)
    implied: Any = key_map.implied(tensors, cast(Any, renamed))
    return renamed | implied


def from_ours(tensors: dict[str, Value], naming: Naming) -> dict[str, Value]:
    """`tensors` under upstream's names, in the same order; one that upstream lists twice stands there twice.

    Raises CheckpointError for weights that have no name there: the folded form, options that the released models do
    not have, and values that upstream's layout has no place for.
    """
    key_map = KEY_MAPS[naming]
    translated = key_map.to_theirs(tensors)
    for name in tensors:
        if name not in translated:
            raise CheckpointError(
                f"'{name}' has no name in {key_map.title}. Only the released architecture does, in {key_map.forms}; "
                "save other models with save_checkpoint."
            )
    theirs: dict[str, Value] = {}
    for name, upstream in translated.items():
        value: Any = tensors[name]
        if isinstance(value, Tensor) and not upstream:
            key_map.check_left_out(name, value)
        for each in upstream:
            laid_out: Any = key_map.their_value(each, value) if isinstance(value, Tensor) else value
            theirs[each] = laid_out
    return theirs


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return first == second
