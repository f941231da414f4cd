"""What a hybridvit checkpoint says of itself, in safetensors' metadata: the model's card, a digest of the tensors."""

import dataclasses
import json
from collections.abc import Mapping

from torch import Tensor

from hybridvit.card import ModelCard
from hybridvit.checkpoints.files import KEY, WeightFile
from hybridvit.digest import digest
from hybridvit.errors import CheckpointError

VERSION = 3
READABLE = (1, 2, 3)  # cards of version 1 have no task: it is classification; those before version 3 no head


def to_metadata(card: ModelCard, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of a file that holds `tensors`."""
    entry = {"version": VERSION, "card": dataclasses.asdict(card), "sha256": digest(tensors)}
    return {KEY: json.dumps(entry, sort_keys=True)}


def card_of(file: WeightFile) -> ModelCard | None:
    """The card in a checkpoint of ours, None in a file of others.

    Raises CheckpointError if the card cannot be read, or if the tensors are not those that were saved with it.
    """
    if KEY not in file.metadata:
        return None
    try:
        entry = json.loads(file.metadata[KEY])
        version = entry["version"]
        card = ModelCard.from_dict(entry["card"]) if version in READABLE else None
        saved = entry["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file.path}: its model card is damaged ({type(error).__name__}: {error}). Save or fetch it again."
        ) from error
    if card is None:
        raise CheckpointError(
            f"{file.path} is a hybridvit checkpoint of version {version!r}, and this release reads up to {VERSION}. "
            "Update hybridvit."
        )
    if digest(file.tensors) != saved:
        raise CheckpointError(
            f"{file.path} is damaged: the SHA-256 of its tensors is not the one recorded when it was saved. Use "
            "another copy of it."
        )
    return card
