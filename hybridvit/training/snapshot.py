"""The state of a run on disk: a folder that is whole or does not count, and never runs pickled code.

A snapshot holds `tensors.safetensors`, `state.json` (everything else) and, written last, `manifest.json` with the
size and SHA-256 of both. It is written under another name, synced and renamed, so that a kill at any moment leaves
the snapshots before it.
"""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hybridvit.atomic import NO_SPACE, sync
from hybridvit.errors import CheckpointError, DiskFull

SCHEMA = 1
MANIFEST = "manifest.json"
PREFIX = "step-"
TEMPORARY = ".tmp-"
ATTEMPTS = 3

logger = logging.getLogger(__name__)


def save_snapshot(folder: Path, step: int, state: Mapping[str, Any], *, keep: int, world_size: int = 1) -> Path:
    """Write `state` (nested dicts and lists of tensors and JSON values) as folder/step-N; keep the newest `keep`.

    Raises DiskFull, after three tries, when the device refuses; the snapshots before are then untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{PREFIX}{step:09d}"
    for attempt in range(1, ATTEMPTS + 1):
        temporary = folder / f"{TEMPORARY}{final.name}-{secrets.token_hex(4)}"
        try:
            _write(temporary, step, state, world_size)
            if final.exists():  # damaged, or of a run that went another way: this one takes its place
                _remove(final)
            temporary.rename(final)
            sync(folder)
            break
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if error.errno not in NO_SPACE:
                raise
            if attempt == ATTEMPTS:
                raise DiskFull(
                    f"The checkpoint of step {step} could not be written to {folder} ({os.strerror(error.errno)}). "
                    "The checkpoints before it are untouched. Free some space and resume the run."
                ) from error
            time.sleep(0.2 * attempt)
    for old in _newest_first(folder)[keep:]:
        _remove(old)
    return final


def newest_snapshot(folder: Path) -> Path | None:
    """The newest snapshot that is whole, None if there is none; each damaged one passed over is named in a warning."""
    for path in _newest_first(folder):
        problem = _problem(path)
        if problem is None:
            return path
        logger.warning("Checkpoint %s is passed over: %s.", path, problem)
    return None


def read_snapshot(path: Path) -> dict[str, Any]:
    """The state as it was saved; tensors are on the CPU. Raises CheckpointError if the folder is not whole."""
    problem = _problem(path)
    if problem is not None:
        raise CheckpointError(f"{path} is no whole checkpoint: {problem}. Resume from another one.")
    try:
        tensors = load_file(path / "tensors.safetensors")
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Resume from another checkpoint.") from error
    return _unpack(state, tensors)


def sweep(folder: Path) -> None:
    """Remove what a killed save left behind. Only for the holder of the run folder's lock."""
    if folder.is_dir():
        for leftover in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _write(temporary: Path, step: int, state: Mapping[str, Any], world_size: int) -> None:
    temporary.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    plain = _pack(state, "", tensors)
    expected_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if shutil.disk_usage(temporary).free < 1.2 * expected_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        save_file(tensors, temporary / "tensors.safetensors")
    except SafetensorError as error:
        if "No space left" in str(error) or "os error 28" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    (temporary / "state.json").write_text(json.dumps(plain), encoding="utf-8")
    files = {}
    for path in sorted(temporary.iterdir()):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {"schema": SCHEMA, "step": step, "world_size": world_size, "torch": torch.__version__, "files": files}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(temporary / MANIFEST)
    sync(temporary)


def _problem(path: Path) -> str | None:
    """What is wrong with a snapshot, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            return f"it has layout {manifest['schema']}, and this version reads {SCHEMA}"
        for name, record in manifest["files"].items():
            file = path / name
            if file.parent != path or not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != record["bytes"]:
                return f"{name} has {file.stat().st_size} bytes where {record['bytes']} were written"
            if _sha256(file) != record["sha256"]:
                return f"the content of {name} has changed since it was written"
        if set(manifest["files"]) != {"state.json", "tensors.safetensors"}:
            return f"its {MANIFEST} does not list its two files"
    except FileNotFoundError:
        return f"its {MANIFEST} is missing, so it was not written to its end"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    return None


def _newest_first(folder: Path) -> list[Path]:
    """Every step-N folder, highest N first; compared as numbers."""
    if not folder.is_dir():
        return []
    numbered = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)


def _remove(path: Path) -> None:
    """Delete a snapshot; a kill in between leaves a temporary name, never half a snapshot."""
    doomed = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for `value`; each tensor is put into `tensors` under its path and leaves a reference."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        # A list of pairs, because an optimizer's state has integers as keys and JSON has only text.
        return {"dict": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"State '{name}' is a {type(value).__name__}, and only tensors and JSON values can be saved.")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
