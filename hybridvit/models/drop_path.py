"""Stochastic depth (Huang et al., 2016)."""

from jaxtyping import Float
from torch import Tensor

from hybridvit.tracing import one_node


@one_node
def drop_path(
    branch: Float[Tensor, "n *rest"], rate: float, *, training: bool, num_images: int | None = None
) -> Float[Tensor, "n *rest"]:
    """In training, zero the branch of whole images with probability `rate`, and scale the others to keep the mean.

    The first axis holds the images; `num_images` of them as equally many entries each, one after the other.
    """
    if not training or rate == 0:
        return branch
    entries = branch.shape[0]
    num_images = entries if num_images is None else num_images
    kept = branch.new_empty(num_images, *(1,) * (branch.ndim - 1)).bernoulli_(1 - rate) / (1 - rate)
    return branch * (kept if num_images == entries else kept.repeat_interleave(entries // num_images, 0))
