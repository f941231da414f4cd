"""What an exported file carries besides its graph, so that nothing else is needed to use it.

| key | content |
|---|---|
| `hybridvit.format` | version of this table |
| `hybridvit.card` | JSON of ModelCard: architecture, options, class names, preprocessing, source, licence |
| `hybridvit.graph` | JSON of GraphSpec: what it takes and gives |
| `hybridvit.weights_sha256` | digest of the weights that were exported, before folding |
| `hybridvit.parity` | JSON: largest difference from PyTorch, what it counts in, the limit, what was compared |
| `hybridvit.embedding_space` | of a file of embeddings the card's: those of one space can be compared |
| `hybridvit.accuracy` | int8, JSON: what it costs in the headline of the task, and which layers kept floating point |
| `hybridvit.sha256` | digest of the file itself, see seal.py |
| `hybridvit.versions` | JSON: the packages that wrote it |
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from hybridvit.card import ModelCard
from hybridvit.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import nn

FORMAT = "3"


def card_of(model: "nn.Module") -> ModelCard:
    """The card of a model that hybridvit created. Raises UsageError for any other module."""
    card = getattr(model, "card", None)
    if not isinstance(card, ModelCard):
        raise UsageError(
            f"{type(model).__name__} carries no card, so its input size, normalisation and class names are unknown. "
            "Use a model from hybridvit.create_model or hybridvit.load, or set model.card = hybridvit.ModelCard(...)."
        )
    return card


def card_metadata(card: ModelCard) -> dict[str, str]:
    """The card as file metadata."""
    return {"hybridvit.format": FORMAT, "hybridvit.card": json.dumps(asdict(card), ensure_ascii=False)}


def read_card(metadata: Mapping[str, str], path: object) -> ModelCard:
    """The inverse of `card_metadata`. Raises CheckpointError when `path` holds no card that can be read."""
    if "hybridvit.card" not in metadata:
        raise CheckpointError(
            f"{path} holds no hybridvit.card: it was not written by hybridvit, so its class names and preprocessing "
            "are unknown. Export it again with `hybridvit export CHECKPOINT`."
        )
    try:
        return ModelCard.from_dict(json.loads(metadata["hybridvit.card"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"The card inside {path} cannot be read ({error}): it was written by another version "
            f"(format {metadata.get('hybridvit.format', 'unknown')}, this one reads {FORMAT}) or was changed. "
            "Export it again."
        ) from error
