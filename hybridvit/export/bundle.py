"""What an exported file carries besides its graph, so that nothing else is needed to use it.

| key | content |
|---|---|
| `hybridvit.format` | version of this table |
| `hybridvit.card` | JSON of ModelCard: architecture, options, class names, preprocessing, source, licence |
| `hybridvit.input` | JSON: name, axes, shape, element type; `range_px`: smallest and largest side, if dynamic |
| `hybridvit.weights_sha256` | digest of the weights that were exported, before folding |
| `hybridvit.parity` | JSON: largest relative difference from PyTorch, the limit, what was compared |
| `hybridvit.versions` | JSON: the packages that wrote it |
"""

import json
import operator
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from hybridvit.card import ModelCard
from hybridvit.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import nn

FORMAT = "1"
INPUT, OUTPUT = "images", "logits"  # names of the graph's ends


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


def input_metadata(image_shape: tuple[int, int, int], range_px: tuple[int, int] | None) -> dict[str, str]:
    """What the file takes: images of `image_shape` (channels, height, width), or of any sides in `range_px`."""
    channels, height, width = image_shape
    described: dict[str, object] = {
        "name": INPUT,
        "axes": "batch channels height width",
        "shape": ["batch", channels, *((height, width) if range_px is None else ("height", "width"))],
        "type": "float32",
    }
    if range_px is not None:
        described["range_px"] = range_px
    return {"hybridvit.input": json.dumps(described)}


def read_shape(metadata: Mapping[str, str], path: object) -> tuple[tuple[int, int, int] | None, tuple[int, int] | None]:
    """The inverse of `input_metadata`: the image shape if it is fixed, else the range of the sides.

    Raises CheckpointError when `path` does not say what it takes.
    """
    try:
        described = json.loads(metadata["hybridvit.input"])
        if "range_px" in described:
            smallest, largest = (operator.index(side) for side in described["range_px"])
            return None, (smallest, largest)
        channels, height, width = (operator.index(side) for side in described["shape"][1:])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not say which images it takes ({error}): it was changed or is incomplete. Export it again."
        ) from error
    return (channels, height, width), None


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
