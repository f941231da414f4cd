"""The state of a run on disk: a folder that is whole or does not count, and never runs pickled code.

A snapshot holds `tensors.safetensors`, `state.json` (everything else) and, written last, `manifest.json` with the
size and SHA-256 of both. It is written under another name, synced and renamed, so that a kill at any moment leaves
the snapshots before it.
"""

import errno
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hybridvit.atomic import NO_SPACE, sync
from hybridvit.digest import sha256_of
from hybridvit.errors import CheckpointError, DiskFull

SCHEMA = 1
MANIFEST = "manifest.json"
STATE = "state.json"
TENSORS = "tensors.safetensors"
PREFIX = "step-"
TEMPORARY = ".tmp-"
ATTEMPTS = 3
CHUNK_BYTES = 1 << 20
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What reading a damaged file can raise."""

logger = logging.getLogger(__name__)


def save_snapshot(folder: Path, step: int, state: Mapping[str, Any], *, keep: int, world_size: int = 1) -> Path:
    """Write `state` (nested dicts and lists of tensors and JSON values) as folder/step-N; keep the newest `keep`.

    Where there is no room, snapshots that the new one makes superfluous go first; the newest whole one always stays.
    Raises DiskFull, after three tries, when the device refuses.
    """
    final = folder / f"{PREFIX}{step:09d}"
    for attempt in range(1, ATTEMPTS + 1):
        temporary = _temporary(final)
        try:
            _make(folder)
            _write(temporary, step, state, world_size)
            if final.exists():  # damaged, or else the run would have gone on from it: this one takes its place
                final.rename(_temporary(final))
            temporary.rename(final)
            sync(folder)
            break
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if error.errno not in NO_SPACE:
                raise
            if attempt == ATTEMPTS:
                kept = (
                    "The newest checkpoint before it is untouched. Free some space and resume the run."
                    if _newest_first(folder)
                    else "There is no checkpoint before it. Free some space and start the run again."
                )
                raise DiskFull(
                    f"The checkpoint of step {step} could not be written to {folder} ({os.strerror(error.errno)}). "
                    f"{kept}"
                ) from error
            if error.errno != errno.EIO:
                _make_room(folder, keep)
            time.sleep(0.2 * attempt)
    _forget([path for path in _newest_first(folder) if _number(path) < step][keep - 1 :])
    sweep(folder)
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
        tensors = load_file(path / TENSORS)
        state = _unpack(json.loads((path / STATE).read_text(encoding="utf-8")), tensors)
    except (SafetensorError, *UNREADABLE) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Resume from another checkpoint.") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not the state of a run. Resume from another.")
    return state


def sweep(folder: Path) -> None:
    """Remove what killed or failed saves left behind. Only for the holder of the run folder's lock."""
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
    (temporary / STATE).write_text(json.dumps(plain), encoding="utf-8", newline="\n")
    try:
        save_file(tensors, temporary / TENSORS)
    except SafetensorError:  # the system's answer is in its text alone, worded otherwise in every version: ask again
        with (temporary / TENSORS).open("wb") as file:
            for _ in range(expected_bytes // CHUNK_BYTES + 1):
                file.write(bytes(CHUNK_BYTES))
            os.fsync(file.fileno())
        raise
    (temporary / TENSORS).chmod((temporary / STATE).stat().st_mode)  # safetensors lets no one else read its files
    files = {}
    for path in sorted(temporary.iterdir()):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {"schema": SCHEMA, "step": step, "world_size": world_size, "torch": torch.__version__, "files": files}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8", newline="\n")
    sync(temporary / MANIFEST)
    sync(temporary)


def _problem(path: Path) -> str | None:
    """What is wrong with a snapshot, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            return f"it has layout {manifest['schema']}, and this version reads {SCHEMA}"
        if _is_snapshot(path) and manifest["step"] != _number(path):
            return f"its {MANIFEST} is that of step {manifest['step']}"
        for name, record in manifest["files"].items():
            file = path / name
            if file.parent != path or not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != record["bytes"]:
                return f"{name} has {file.stat().st_size} bytes where {record['bytes']} were written"
            if sha256_of(file) != record["sha256"]:
                return f"the content of {name} has changed since it was written"
        if set(manifest["files"]) != {STATE, TENSORS}:
            return f"its {MANIFEST} does not list its two files"
    except FileNotFoundError:
        return f"its {MANIFEST} is missing, so it was not written to its end"
    except UNREADABLE as error:
        return f"its {MANIFEST} cannot be read ({error})"
    return None


def _newest_first(folder: Path) -> list[Path]:
    """Every step-N folder, highest N first; compared as numbers."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.glob(f"{PREFIX}*") if _is_snapshot(path)), key=_number, reverse=True)


def _is_snapshot(path: Path) -> bool:
    return path.name.startswith(PREFIX) and path.name.removeprefix(PREFIX).isdecimal()


def _number(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _temporary(final: Path) -> Path:
    return final.with_name(f"{TEMPORARY}{final.name}-{secrets.token_hex(4)}")


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)


def _make_room(folder: Path, keep: int) -> None:
    """Delete what is not needed any more, and what will not be once the next snapshot is there."""
    sweep(folder)
    newest = newest_snapshot(folder)
    if newest is None:
        return
    older = [path for path in _newest_first(folder) if _number(path) < _number(newest)]
    _forget(older[max(0, keep - 2) :])


def _forget(snapshots: Iterable[Path]) -> None:
    for path in snapshots:
        try:
            _remove(path)
        except OSError as error:  # no reason to end a run: it takes room, and nothing else
            logger.warning("Checkpoint %s is not needed any more, but could not be deleted (%s).", path, error.strerror)


def _remove(path: Path) -> None:
    """Delete a snapshot; a kill in between leaves a temporary name, never half a snapshot."""
    shutil.rmtree(path.rename(_temporary(path)))


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
