"""Weights in several files: how transformers and accelerate store large models. Torch is not needed here."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from hybridvit.errors import CheckpointError, some

INDEX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Files that make one state dict together."""

    files: tuple[Path, ...]
    names: frozenset[str] = frozenset()  # that they must hold; empty without an index


def shards_of(path: Path) -> Shards | None:
    """The files that an index or a folder stands for, None for anything else.

    A folder needs an index, or numbered files of which none is missing. Raises CheckpointError for an index that is
    damaged or names files that are not beside it, for missing files, and for one file out of several.
    """
    if path.is_dir():
        indices = sorted(path.glob(f"*{INDEX}"), key=lambda index: (".safetensors" not in index.name, index.name))
        return _indexed(indices[0]) if indices else _numbered(path)
    if path.name.endswith(INDEX) and path.is_file():
        return _indexed(path)
    match = _SHARD.fullmatch(path.name)
    if match and int(match["count"]) > 1 and path.is_file():
        raise CheckpointError(
            f"{path} is file {int(match['number'])} of {int(match['count'])} that hold one model together. Pass their "
            f"folder {path.parent}, or the index beside them."
        )
    return None


def _indexed(index: Path) -> Shards:
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = list(dict.fromkeys(table.values()))
        names = frozenset(table)
    except OSError as error:
        raise CheckpointError(f"{index} cannot be read: {error.strerror}. Check its permissions.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is no index of weights, or damaged: it needs a 'weight_map' of names and files "
            f"({type(error).__name__}). Fetch it again, or pass a file of weights."
        ) from error
    outside = [file for file in files if not isinstance(file, str) or Path(file).name != file]
    if outside or not files:
        raise CheckpointError(
            f"{index} names {some([repr(file) for file in outside]) or 'no file'}, but shards are files beside their "
            "index. Fetch it again from its source."
        )
    return Shards(files=_present(index, [index.parent / file for file in files]), names=names)


def _numbered(folder: Path) -> Shards | None:
    matches = [match for item in sorted(folder.iterdir()) if (match := _SHARD.fullmatch(item.name))]
    if not matches:
        return None
    first = matches[0]
    width, count = len(first["count"]), int(first["count"])
    names = [
        f"{first['stem']}-{number:0{width}}-of-{first['count']}{first['suffix']}" for number in range(1, count + 1)
    ]
    return Shards(files=_present(folder, [folder / name for name in names]))


def _present(source: Path, files: list[Path]) -> tuple[Path, ...]:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{source}: {len(missing)} of {len(files)} files of the model are missing ({some(missing)}). Fetch them "
            "into the same folder."
        )
    return tuple(files)
