"""Read weights out of a file: safetensors, or a pickle that torch.save wrote. No code inside a file ever runs.

The only module that calls torch.load.
"""

import argparse
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hybridvit.checkpoints.sniff import Format, check_pickle, check_zip, file_format
from hybridvit.errors import CheckpointError, one_line

log = logging.getLogger(__name__)

# The entries that training scripts store weights under, averaged ones before raw ones; the first one present is read.
WEIGHT_SETS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model", "model_state_dict", "net")
NUM_AVERAGED = 4  # so many of WEIGHT_SETS, from the start, are averaged
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
INTEGER_DTYPES = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one file, all on the CPU, finite, under the names the file has less wrapper prefixes."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file; a pickle has none
    weight_set: str = ""  # the entry the tensors came from, such as "state_dict_ema"; empty if the file is flat


def read_tensors(path: str | os.PathLike[str]) -> WeightFile:
    """The weights in the file at `path`; its format is found from its bytes.

    Pickles are refused unless they are plain state dicts, alone or inside a dict such as {"state_dict": ...}; averaged
    (EMA) weights win over raw ones, and the choice is logged and returned. Tensors may share memory with the file:
    clone what is kept. Raises CheckpointError, and nothing else, for whatever is wrong with the file.
    """
    path = Path(path).expanduser()
    kind = check_file(path)
    if kind == "safetensors":
        values, metadata = _read_safetensors(path)
        return WeightFile(path, _checked(path, values), metadata)
    return weights_in(_read_pickle(path), path)


def weights_in(loaded: object, path: Path) -> WeightFile:
    """The weights in what was unpickled from `path`, found and checked as `read_tensors` does it."""
    values, weight_set = _weight_set(path, loaded)
    return WeightFile(path, _checked(path, values), weight_set=weight_set)


def _checked(path: Path, values: Mapping[Any, Any]) -> dict[str, Tensor]:
    tensors = _without_wrappers(values)
    _check_tensors(path, tensors)
    return tensors


def check_file(path: Path) -> Format:
    """The format of a weight file that is whole and safe to read, from its structure alone: no tensor is read.

    Raises CheckpointError if it is neither.
    """
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


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except Exception as error:  # a hostile header reaches many layers; whatever they raise, the file is to blame
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise CheckpointError(f"{path} is damaged safetensors ({reason}). Fetch or save it again.") from error


def _read_safetensors(path: Path) -> tuple[Mapping[Any, Any], dict[str, str]]:
    with _open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about old pickle protocols and storage types, which nobody can change
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch's own text is not passed on: it advises to switch its protection off
        raise CheckpointError(
            f"{path} is damaged, or holds more than weights: torch.load(weights_only=True) refused it. Fetch or save "
            "it again, or ask its author for safetensors."
        ) from None


def _weight_set(path: Path, loaded: object) -> tuple[Mapping[Any, Any], str]:
    """The state dict in what a pickle held, and the name of its entry."""
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path} holds one {type(loaded).__name__}, but weights are a dict of names and tensors. Save "
            "model.state_dict()."
        )
    if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return loaded, ""
    present = [name for name in WEIGHT_SETS if isinstance(loaded.get(name), Mapping) and loaded[name]]
    if not present:
        names = ", ".join(f"'{name}'" for name in list(loaded)[:8]) or "none"
        raise CheckpointError(
            f"{path} holds no weights: none of its entries ({names}) is one of {', '.join(WEIGHT_SETS)}. Save "
            "model.state_dict(), alone or under one of these names."
        )
    chosen = present[0]
    if len(present) > 1:
        kind = "averaged (EMA) weights" if chosen in WEIGHT_SETS[:NUM_AVERAGED] else "weights"
        log.warning("%s holds %s: using the %s in '%s'", path, " and ".join(present), kind, chosen)
    return loaded[chosen], chosen


def _without_wrappers(tensors: Mapping[Any, Any]) -> dict[str, Any]:
    names = [str(name) for name in tensors]
    while prefix := next((p for p in WRAPPER_PREFIXES if names and all(name.startswith(p) for name in names)), ""):
        names = [name.removeprefix(prefix) for name in names]
    values = (value.detach() if isinstance(value, Tensor) else value for value in tensors.values())
    return dict(zip(names, values, strict=True))


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
