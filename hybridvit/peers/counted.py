"""How large a model is, ours or another's, without building its weights."""

import torch

from hybridvit.measure.counts import count
from hybridvit.measure.subject import build, find_subject


def counted(name: str, side: int) -> tuple[int, int]:
    """Parameters and multiply-adds of a folded model for one image of `side` x `side` pixels.

    Raises UsageError for an unknown name.
    """
    subject, size = find_subject(name), (side, side)
    try:
        with torch.device("meta"):
            model = build(subject, "folded", size)
    except RuntimeError:  # some fold by arithmetic on the weights
        model = build(subject, "folded", size)
    counts = count(model, size)
    return counts.parameters, counts.multiply_adds
