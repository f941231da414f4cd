"""Layer scale: a learned factor for each channel of a residual branch (CaiT, arXiv:2103.17239, section 2)."""

import torch
from torch import nn


def new_layer_scale(init: float, *shape: int) -> nn.Parameter:
    """Factors of a shape that all begin at `init`; a whole number is one too."""
    return nn.Parameter(torch.full(shape, float(init)))
