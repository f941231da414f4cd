"""The hand that a model was trained with, and no other: its vertices mean nothing to another mesh. Needs no torch."""

from hybridvit.errors import CheckpointError
from hybridvit.tasks.hand.assets import GENERATED, find_assets
from hybridvit.tasks.hand.config import HandMeshConfig
from hybridvit.tasks.hand.hand_assets import HandAssets

_SEEN: dict[str, HandAssets] = {}  # by digest: those that a recipe names may lie anywhere


def seen(assets: HandAssets) -> HandAssets:
    """The hand, which `hand_of` finds from now on by its digest, wherever its file is."""
    return _SEEN.setdefault(assets.sha256, assets)


def hand_of(config: HandMeshConfig) -> HandAssets:
    """The hand of a head's options.

    Raises UsageError where there is none, CheckpointError where another is found than the one with that digest.
    """
    if config.sha256 in _SEEN:
        return _SEEN[config.sha256]
    found = seen(find_assets(GENERATED if config.assets == GENERATED else ""))
    if config.sha256 not in ("", found.sha256):
        raise CheckpointError(
            f"The model moves the {config.assets} hand with SHA-256 {config.sha256[:12]}…, but the one that is found "
            f"has {found.sha256[:12]}…, and what the model learnt means nothing to its mesh. Set $HYBRIDVIT_MANO to the "
            "file that it was trained with."
        )
    return found
