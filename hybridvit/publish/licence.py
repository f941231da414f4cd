"""Under which licence a model may be published."""

import re
from typing import Any

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError

KNOWN = frozenset(
    (
        "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "openrail",
        "unlicense", "apple-amlr", "apple-ascl",
    )
)  # fmt: skip
"""Words that the hub knows; another licence is "other" with a name there."""


def licence_of(card: ModelCard, given: str) -> str:
    """That of the weights which the model began with, else the given one; empty where nobody has said any.

    Raises UsageError for one given where the weights have theirs, or one that is more than a line.
    """
    if card.licence and given:
        raise UsageError(
            f"--licence is '{given}', but the model was made from weights under another: {card.licence}. What is made "
            "of them stays under it. Leave --licence out."
        )
    if given and (not given.isprintable() or len(given) > 100):
        raise UsageError("--licence is one line of at most 100 characters, such as apache-2.0 or mit. Shorten it.")
    return card.licence or given


def in_front_matter(licence: str) -> dict[str, Any]:
    """How the hub's front matter states it; nothing where it is not known."""
    if not licence:
        return {}
    word = re.split(r"[\s:]", licence)[0].lower()
    if word in KNOWN:
        return {"license": word}
    title = re.split(r" ?[(:]", licence)[0]
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")}
