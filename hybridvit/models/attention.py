"""Attention as all families compute it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hybridvit.tracing import in_transform, is_recorded

Watcher = Callable[[Tensor], None]
"""Told the weights of each attention that is computed: (*n, queries, keys), whose rows sum to 1."""
_watcher: ContextVar[Watcher | None] = ContextVar("_watcher", default=None)


@contextmanager
def watched_attention(watcher: Watcher) -> Iterator[None]:
    """Within it attention computes its weights for themselves, which the fused kernels do not, and tells `watcher`.

    The graph of a compiler or a trace has no weights: nothing is told of what runs there.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def attention(
    query: Float[Tensor, "*n t d"],
    key: Float[Tensor, "*n s d"],
    value: Float[Tensor, "*n s d"],
    scores: Float[Tensor, "*#n t s"] | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "*n t d"]:
    """torch's scaled dot product attention, with `scores` added.

    In transforms of torch.func it takes its plain form: the fused kernels have no forward derivative, and under
    `torch.func.grad` they refuse scores that learn.
    """
    if not is_recorded(query):
        watcher = _watcher.get()
        if watcher is not None:
            factor = query.shape[-1] ** -0.5 if scale is None else scale
            products = query * factor @ key.mT
            weights = (products if scores is None else products + scores).softmax(-1)  # *n t s
            watcher(weights)
            return weights @ value
        if len(query) == 0 and scores is not None:
            return (query @ key.mT + scores).softmax(-1) @ value  # torch's own would give the scores no gradient
        if in_transform(query):
            with sdpa_kernel(SDPBackend.MATH):
                return F.scaled_dot_product_attention(query, key, value, scores, scale=scale)
    return F.scaled_dot_product_attention(query, key, value, scores, scale=scale)
