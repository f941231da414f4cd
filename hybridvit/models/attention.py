"""Attention as all families compute it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hybridvit.tracing import in_transform, is_recorded


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
        if len(query) == 0 and scores is not None:
            return (query @ key.mT + scores).softmax(-1) @ value  # torch's own would give the scores no gradient
        if in_transform(query):
            with sdpa_kernel(SDPBackend.MATH):
                return F.scaled_dot_product_attention(query, key, value, scores, scale=scale)
    return F.scaled_dot_product_attention(query, key, value, scores, scale=scale)
