"""Linear layers with ReLU between them, and the two heads of a query."""

import math
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

RARE = 0.01  # how probable a class is at the start, so that the many queries without an object cost little


class MLP(nn.Module):
    """Linear layers of the given widths, input first."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, following) for width, following in pairwise(widths))

    def forward(self, x: Float[Tensor, "*any c"]) -> Float[Tensor, "*any d"]:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class BoxHead(MLP):
    """What is added to the logits of a reference box: nothing, at the start."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, dim, 4)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class ClassHead(nn.Linear):
    """The logits of the classes."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim, num_classes)
        nn.init.constant_(self.bias, math.log(RARE / (1 - RARE)))


def xavier_(*modules: nn.Module) -> None:
    """Draw every matrix anew, uniformly after Glorot."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
