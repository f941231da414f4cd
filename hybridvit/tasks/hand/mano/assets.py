"""Files of hands: `hybridvit mano convert` writes them, and whatever needs a hand finds them. Needs no torch."""

import json
import os
from pathlib import Path

import numpy as np

from hybridvit.atomic import replacing
from hybridvit.cache import cache_folder
from hybridvit.errors import CheckpointError, UsageError, one_line
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_assets import HandAssets

__all__ = ["HandAssets", "default_path", "find_assets", "read_assets", "write_assets"]

GENERATED = "generated"
VARIABLE = "HYBRIDVIT_MANO"
_KEY = "hand"  # of the file's metadata: a single one, for safetensors writes several in random order


def default_path(side: str = "right") -> Path:
    """Where `hybridvit mano convert` writes a hand, and where it is looked for."""
    return cache_folder() / "mano" / f"hand-{side}.safetensors"


def find_assets(name: str = "") -> HandAssets:
    """The right hand of that name: "generated", or the path of a file that was converted.

    "" looks at the file that $HYBRIDVIT_MANO names, then at `default_path()`. Raises UsageError where there is none, or
    a left hand; CheckpointError for a file that holds no hand.
    """
    if name == GENERATED:
        return generated_hand()
    named = name or os.environ.get(VARIABLE, "")
    path = Path(named) if named else default_path()
    assets = read_assets(path)
    if assets.side != "right":
        raise UsageError(
            f"{path} holds a {assets.side} hand, but models see right hands: pictures of left ones are mirrored for "
            "them. Give the file that MANO_RIGHT.pkl was converted to."
        )
    return assets


def read_assets(path: str | os.PathLike[str]) -> HandAssets:
    """The hand in a file that `write_assets` wrote.

    Raises UsageError for a file that is not there, CheckpointError for one that is another or holds no hand.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(
            f"{path} is not there, so there is no hand to move. MANO's arrays may not be passed on: register at "
            "https://mano.is.tue.mpg.de, accept its licence, unzip mano_v1_2.zip, and run `hybridvit mano convert "
            f"mano_v1_2/models/MANO_RIGHT.pkl` once; ${VARIABLE} may name the file that it writes. Without MANO, take "
            "the generated hand: --hand.assets generated."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            notes = json.loads((file.metadata() or {})[_KEY])
            notes.pop("units")
            return HandAssets(**{name: file.get_tensor(name) for name in file.keys()}, **notes)  # noqa: SIM118
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no hand that `hybridvit mano convert` has written ({one_line(error)}). Convert MANO_RIGHT.pkl "
            "to it once more."
        ) from error


def write_assets(assets: HandAssets, path: str | os.PathLike[str], *, double: bool = False) -> None:
    """Write a hand in float32, or float64, whole or not at all. Raises as `hybridvit.atomic.replacing`."""
    from safetensors.numpy import save

    real = np.float64 if double else np.float32
    arrays = {
        name: np.ascontiguousarray(array, dtype=real if array.dtype.kind == "f" else np.int64)
        for name, array in assets.arrays().items()
    }
    metadata = {_KEY: json.dumps({**assets.notes(), "units": "m"}, sort_keys=True)}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(save(arrays, metadata=metadata))
