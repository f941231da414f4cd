"""What whoever wrote a file put around a model's names, and beside them: taken off, completed, or left out by name."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridvit.checkpoints.keymaps import is_known
from hybridvit.errors import CheckpointError
from hybridvit.models.backbone import Backbone

Known = Callable[[Collection[str]], bool]
"""Whether names are those of a model that is looked for."""

MARKERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any depth."""

PARALLEL = "module."
"""What DistributedDataParallel puts before every name."""

COUNTS = frozenset({"n_averaged", "total_ops", "total_params"})
"""What AveragedModel counts, and thop leaves behind in every module."""

CLASSIFIERS = frozenset({Backbone.classifier[0], "head.weight", "head.proj"})
"""What models call the classifier's weight, ours and timm's, Apple's and NVIDIA's."""

PARTS_BESIDE = {
    "text tower": r"(module\.)?((text|text_encoder|text_model|transformer|token_embedding)\.|text_projection$)",
    "language model": r"(model\.)?(language_model\.)?(layers|embed_tokens|norm)\.|(model\.language_model\.)?lm_head\.",
    "projector": r"model\.(mm_projector|multi_modal_projector)\.",
    "logit scale": r"(module\.)?logit_(scale|bias)$",
}
"""What files of image-and-text models and of language models hold beside an image tower, by the tensors' names."""
_STEM = re.compile(r"(stem|patch_embed)\.")

TRACKED, STATISTIC = "num_batches_tracked", "running_var"
MOST_PARTS = 6  # of a prefix; it bounds the work that a file with absurd names can cause
MOST_TRACKED = 2**53  # batches; a float that claims more is none


@dataclass(frozen=True, kw_only=True)
class Named:
    """The entries of a state dict that belong to one model, under the names that the model knows."""

    tensors: dict[str, Tensor]
    prefix: str = ""  # that was taken off the names
    left_out: tuple[str, ...] = ()  # the entries, by their own names, that are not among `tensors`


def named(entries: Mapping[Any, Any], known: Known = is_known, source: object = "The source") -> Named:
    """The entries of the model that `known` knows; the prefix is the one under which it knows the most names.

    BatchNorm's counters of batches prove nothing: those that are missing are zero, and those that became floats are
    whole numbers again. Without a prefix that makes the names fit, all of them are kept, less what data-parallel
    training puts before each. Raises CheckpointError, naming `source`, if two entries get one name.
    """
    values = {MARKERS.sub("", str(name)): value for name, value in entries.items()}
    if len(values) != len(entries):
        raise CheckpointError(f"{source} holds two tensors of one name, so its meaning is in doubt. Save it again.")
    tensors = {name: value.detach() for name, value in values.items() if _is_weight(name, value)}
    prefix = _prefix(tensors, known, source)
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    # The heads of mmpretrain, beside a `backbone.`, have the names of ours.
    own = () if CLASSIFIERS & inside.keys() else Backbone.classifier
    beside = {name: value for name, value in tensors.items() if name in own}
    taken = {prefix + name for name in inside} | beside.keys()
    left_out = tuple(name for name in values if name not in taken)
    return Named(tensors=_with_counters(inside | beside), prefix=prefix, left_out=left_out)


def _is_weight(name: str, value: object) -> bool:
    return isinstance(value, Tensor) and name.rpartition(".")[2] not in COUNTS


def wanted(names: Collection[str], known: Known = is_known, source: object = "The source") -> frozenset[str]:
    """Those of a file's names that `named` takes, so that nothing else of a large file need be read.

    All of them where nothing stands before a model's names. Raises as `named`.
    """
    plain = {name: MARKERS.sub("", name) for name in names}
    prefix = _prefix(plain.values(), known, source)
    own = {*Backbone.classifier, ""}
    return frozenset(name for name, bare in plain.items() if bare.startswith(prefix) or bare in own)


def parts_beside(names: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kinds of known parts among what was left out, such as "text tower"; and the names that belong to none."""
    kinds = {name: next((k for k, pattern in PARTS_BESIDE.items() if re.match(pattern, name)), "") for name in names}
    found = tuple(kind for kind in PARTS_BESIDE if kind in kinds.values())
    return found, tuple(name for name, kind in kinds.items() if not kind)


def _prefix(names: Collection[str], known: Known, source: object) -> str:
    """The prefix that leaves the most names of a known model, of two such models that of the averaged one.

    Raises CheckpointError if there are two, with a stem each, of which none is the average of the other.
    """
    under: dict[str, list[str]] = {"": list(names)}
    for name in names:
        parts = name.split(".", MOST_PARTS + 1)
        for depth in range(1, min(len(parts), MOST_PARTS + 1)):
            prefix = ".".join(parts[:depth]) + "."
            under.setdefault(prefix, []).append(name[len(prefix) :])
    ranked = sorted(under, key=lambda prefix: (-len(under[prefix]), "ema" not in prefix, prefix.count(".")))
    found = next((prefix for prefix in ranked if known(under[prefix])), None)
    if found is not None:
        rivals = (prefix for prefix in ranked if not prefix.startswith(found) and not found.startswith(prefix))
        other = next((prefix for prefix in rivals if _has_stem(under[prefix]) and known(under[prefix])), None)
        if other is not None and _has_stem(under[found]) and "ema" not in found + other:
            raise CheckpointError(
                f"{source} holds two models, under '{found}' and under '{other}', and does not say which one is meant. "
                "Save the tensors of one alone."
            )
        return found
    prefix = ""
    while names and all(name.startswith(prefix + PARALLEL) for name in names):
        prefix += PARALLEL
    return prefix


def _has_stem(names: Collection[str]) -> bool:
    return any(_STEM.match(name) for name in names)


def _with_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, and for each BatchNorm a whole number of batches."""
    counted = {}
    for name in tensors:
        if name.rpartition(".")[2] == STATISTIC:
            counter = name.removesuffix(STATISTIC) + TRACKED
            counted[counter] = _whole(tensors.get(counter))
    return {name: counted.pop(name, value) for name, value in tensors.items()} | counted


def _whole(counter: Tensor | None) -> Tensor:
    if counter is None:
        return torch.zeros((), dtype=torch.int64)
    is_float = counter.is_floating_point() and counter.layout is torch.strided and not counter.is_meta
    if not is_float or counter.numel() != 1:
        return counter
    batches = float(counter)
    return torch.tensor(round(batches) if 0 <= batches < MOST_TRACKED else 0, dtype=torch.int64)
