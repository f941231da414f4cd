"""Stochastic depth (Huang et al., 2016)."""

from jaxtyping import Float
from torch import Tensor


def drop_path(
    branch: Float[Tensor, "n *rest"], rate: float, *, training: bool, windows_per_image: int = 1
) -> Float[Tensor, "n *rest"]:
    """In training, zero the branch of whole images with probability `rate`, and scale the others to keep the mean.

    The first axis holds the images, each as `windows_per_image` entries one after the other.
    """
    if not training or rate == 0:
        return branch
    num_images = branch.shape[0] // windows_per_image
    kept = branch.new_empty(num_images, *(1,) * (branch.ndim - 1)).bernoulli_(1 - rate) / (1 - rate)
    return branch * (kept if windows_per_image == 1 else kept.repeat_interleave(windows_per_image, 0))
