"""The hand that a model was trained with, and no other: its vertices mean nothing to another mesh. Needs no torch."""

from hybridvit.card import ModelCard
from hybridvit.errors import MissingPart, UsageError
from hybridvit.tasks.hand.mano.assets import GENERATED, find_assets
from hybridvit.tasks.hand.mano.hand_assets import HandAssets

_SEEN: dict[str, HandAssets] = {}  # by digest: those that a recipe names may lie anywhere


def seen(assets: HandAssets) -> HandAssets:
    """The hand, which `hand_of` finds from now on by its digest, wherever its file is."""
    _SEEN[assets.sha256] = assets
    return assets


def named(card: ModelCard) -> str:
    """The hand of a card, as `find_assets` takes it."""
    return GENERATED if card.head_options.get("assets") == GENERATED else ""


def hand_of(card: ModelCard) -> HandAssets:
    """The hand that a card's model moves.

    Raises MissingPart where there is none, or another than the one with the card's digest.
    """
    digest = str(card.head_options.get("sha256", ""))
    if digest in _SEEN:
        return _SEEN[digest]
    try:
        found = seen(find_assets(named(card)))
    except UsageError as error:
        raise MissingPart(str(error)) from error
    if digest not in ("", found.sha256):
        raise MissingPart(
            f"The model moves a hand with SHA-256 {digest[:12]}…, but the one that is found has {found.sha256[:12]}…, "
            "and what the model learnt means nothing to its mesh. Set $HYBRIDVIT_MANO to the file that it was trained "
            "with."
        )
    return found
