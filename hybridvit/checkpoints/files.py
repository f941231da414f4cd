"""Read weights out of a file: safetensors, or a pickle that torch.save wrote. No code inside a file ever runs.

The only module that calls torch.load.
"""

import argparse
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hybridvit.checkpoints.keymaps import is_known
from hybridvit.checkpoints.names import PARALLEL, Known, Named, named, parts_beside, wanted
from hybridvit.checkpoints.shards import Shards, shards_of
from hybridvit.checkpoints.sniff import STAND_INS, Format, check_pickle, check_zip, file_format
from hybridvit.errors import CheckpointError, one_line, some
from hybridvit.hub import local_file

log = logging.getLogger(__name__)

KEY = "hybridvit"
"""Our checkpoints' entry in safetensors' metadata. It is the only one: safetensors writes several in random order, and
equal models give equal files."""

# The entries that training scripts store weights under, averaged ones before raw ones; the first one present is read.
WEIGHT_SETS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model", "model_state_dict", "net")
NUM_AVERAGED = 4  # so many of WEIGHT_SETS, from the start, are averaged
MMENGINE = "message_hub"  # an entry of mmengine's files, whose EMA hook keeps the averaged weights in `state_dict`
DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
INTEGER_DTYPES = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


class StandIn:
    """What takes the place of everything in a pickle that is no weight, such as a score of numpy's: it does nothing."""

    def __new__(cls, *_: object) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    *((StandIn, name) for name in sorted(STAND_INS)),
]


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one model in a file, all on the CPU, finite, under the names the file has less a prefix."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file; a pickle has none
    weight_set: str = ""  # the entry the tensors came from, such as "state_dict_ema"; empty if the file is flat
    prefix: str = ""  # that was taken off the names, such as Lightning's "model."
    left_out: tuple[str, ...] = ()  # names of entries that belong to no model, or to something beside it


def read_tensors(path: str | os.PathLike[str], *, known: Known = is_known, say: bool = True) -> WeightFile:
    """The weights in the file at `path`, or in the shards of a folder or an index; formats are found from the bytes.

    `path` may be on the hub: hf://OWNER/NAME.

    Pickles are refused unless they are plain state dicts, alone or inside a dict such as {"state_dict": ...}; averaged
    (EMA) weights win over raw ones. Of the names, the prefix is taken off under which `known` knows them; see `named`.
    What was chosen and what was left out is returned, and logged if `say`. Tensors may share memory with the file:
    clone what is kept. Raises CheckpointError, and nothing else, for whatever is wrong with the file.
    """
    path = local_file(path).expanduser()
    shards = shards_of(path)
    if shards is not None:
        return _file_of(path, _read_shards(path, shards, known), known=known, say=say)
    if check_file(path) == "safetensors":
        names, metadata = _names_in_safetensors(path)
        entries = _read_safetensors(path, None if KEY in metadata else wanted(names, known, path))
        return _file_of(path, entries, metadata, known=known, say=say)
    return weights_in(_read_pickle(path), path, known=known, say=say)


def weights_in(loaded: object, path: Path, *, known: Known = is_known, say: bool = True) -> WeightFile:
    """The weights in what was unpickled from `path`, found and checked as `read_tensors` does it."""
    entries, weight_set = _weight_set(path, loaded, say=say)
    return _file_of(path, entries, weight_set=weight_set, known=known, say=say)


def _file_of(
    path: Path,
    entries: Mapping[Any, Any],
    metadata: dict[str, str] | None = None,
    weight_set: str = "",
    *,
    known: Known,
    say: bool,
) -> WeightFile:
    is_ours = metadata is not None and KEY in metadata  # and holds one model, whatever its tensors are called
    found = Named(tensors=dict(entries)) if is_ours else named(entries, known, path)
    _check_tensors(path, found.tensors)
    if say and found.prefix.replace(PARALLEL, ""):
        log.warning("%s: its names stand under '%s', which was taken off", path, found.prefix)
    kinds, unknown = parts_beside(found.left_out) if found.prefix else ((), found.left_out)
    if say and kinds:
        count = len(found.left_out) - len(unknown)
        log.warning("%s: left aside: %s; %d tensors", path, ", ".join(kinds), count)
    if say and unknown:
        log.warning("%s: left out, as no part of the model: %s", path, some(unknown, quoted=True))
    return WeightFile(path, found.tensors, metadata or {}, weight_set, found.prefix, found.left_out)


def check_file(path: Path) -> Format:
    """The format of weights that are whole and safe to read, from their structure alone: no tensor is read.

    Raises CheckpointError if they are neither.
    """
    shards = shards_of(path)
    if shards is not None:
        formats = [_check_one(file) for file in shards.files]
        return formats[0]
    return _check_one(path)


def _check_one(path: Path) -> Format:
    kind = file_format(path)
    if kind == "zip":
        check_zip(path)
    elif kind == "pickle":
        with path.open("rb") as stream:
            check_pickle(path, stream, num_pickles=5)
    else:
        with _open_safetensors(path):
            pass
    return kind


def _read_shards(path: Path, shards: Shards, known: Known) -> dict[str, Any]:
    """All entries of the files, without a value where none is needed; CheckpointError for one that two have or none."""
    entries: dict[str, Any] = {}
    kinds = {file: _check_one(file) for file in shards.files}
    names = {name for file, kind in kinds.items() if kind == "safetensors" for name in _names_in_safetensors(file)[0]}
    needed = wanted(names, known, path) if set(kinds.values()) == {"safetensors"} else None
    for file, kind in kinds.items():
        in_safetensors = kind == "safetensors"
        found = (
            _read_safetensors(file, needed) if in_safetensors else _weight_set(file, _read_pickle(file), say=False)[0]
        )
        if twice := [str(name) for name in found if name in entries]:
            raise CheckpointError(f"{path}: {some(twice, quoted=True)} is in two of its files. Fetch them again.")
        entries |= found
    if lost := sorted(shards.names - entries.keys()):
        raise CheckpointError(
            f"{path}: the index lists {len(lost)} tensors that are in none of its files ({some(lost, quoted=True)}). "
            "Index and files are of different models: fetch them again together."
        )
    return entries


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except Exception as error:  # a hostile header reaches many layers; whatever they raise, the file is to blame
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise CheckpointError(f"{path} is damaged safetensors ({reason}). Fetch or save it again.") from error


def _names_in_safetensors(path: Path) -> tuple[list[str], dict[str, str]]:
    """The names of the tensors, none of which is read, and the metadata."""
    with _open_safetensors(path) as file:
        return list(file.keys()), file.metadata() or {}


def _read_safetensors(path: Path, needed: Collection[str] | None) -> dict[str, Any]:
    """The tensors by name; None in place of those that are not needed, so that a large file does not enter memory."""
    with _open_safetensors(path) as file:
        return {
            name: file.get_tensor(name) if needed is None or name in needed else None
            for name in file.keys()  # noqa: SIM118
        }


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            warnings.simplefilter("ignore")  # about old pickle protocols and storage types, which nobody can change
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch's own text is not passed on: it advises to switch its protection off
        raise CheckpointError(
            f"{path} is damaged, or holds more than weights: torch.load(weights_only=True) refused it. Fetch or save "
            "it again, or ask its author for safetensors."
        ) from None


def _weight_set(path: Path, loaded: object, *, say: bool) -> tuple[Mapping[Any, Any], str]:
    """The state dict in what a pickle held, and the name of its entry."""
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path} holds one {type(loaded).__name__}, but weights are a dict of names and tensors. Save "
            "model.state_dict()."
        )
    present = [name for name in _order_of_sets(loaded) if _holds_weights(loaded.get(name))]
    if not present and _holds_weights(loaded):
        return loaded, ""
    others = [] if present else [name for name, value in loaded.items() if _holds_weights(value)]
    if not present and len(others) != 1:
        names = ", ".join(f"'{name}'" for name in list(loaded)[:8]) or "none"
        raise CheckpointError(
            f"{path} holds no weights: none of its entries ({names}) is one of {', '.join(WEIGHT_SETS)}. Save "
            "model.state_dict(), alone or under one of these names."
        )
    chosen = (present or others)[0]
    if say and len(present) > 1:
        is_averaged = chosen in WEIGHT_SETS[:NUM_AVERAGED] or MMENGINE in loaded
        kind = "averaged (EMA) weights" if is_averaged else "weights"
        log.warning("%s holds %s: using the %s in '%s'", path, " and ".join(present), kind, chosen)
    return loaded[chosen], str(chosen)


def _order_of_sets(loaded: Mapping[Any, Any]) -> tuple[str, ...]:
    """The names of entries, the one to read first."""
    return tuple(dict.fromkeys(("state_dict", *WEIGHT_SETS))) if MMENGINE in loaded else WEIGHT_SETS


def _holds_weights(value: object) -> bool:
    """Whether this is a dict of names, most of them of tensors."""
    if not isinstance(value, Mapping):
        return False
    num_tensors = sum(isinstance(entry, Tensor) for entry in value.values())
    return num_tensors > len(value) / 2


def _check_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors. Save model.state_dict() of a model with weights.")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: '{name}' is a {type(tensor).__name__}, but every entry of a state dict is a tensor. "
                "Remove it and save again."
            )
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.dtype not in DTYPES | INTEGER_DTYPES:
            raise CheckpointError(
                f"{path}: '{name}' is a tensor of {tensor.dtype}, {tensor.layout}, on '{tensor.device}'; weights are "
                "dense floats or integers. Convert it and save again."
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path}: '{name}' has shape {tuple(tensor.shape)}, more than the file stores for it. "
                "Save a contiguous copy of it."
            )
        if tensor.dtype in DTYPES and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{path}: {count:,} of {tensor.numel():,} values of '{name}' are NaN or infinite. The run that wrote "
                "it had diverged, or the file is damaged: use an earlier checkpoint."
            )
