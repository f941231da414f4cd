"""Our names of Swin with hierarchical attention; its start from timm's Swin is in `hybridvit.models.swin_hat`."""

import re
from collections.abc import Collection

from hybridvit.card import Form


def is_ours(names: Collection[str]) -> bool:
    """Whether these are our names of a Swin with hierarchical attention."""
    return any(re.match(r"stages\.\d+\.attention\.", name) for name in names)


def form_of(names: Collection[str]) -> Form:
    """training or folded, from our names; nobody released another form."""
    return "training" if any(name.endswith(".mlp.norm.weight") for name in names) else "folded"
