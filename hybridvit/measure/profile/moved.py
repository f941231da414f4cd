"""The bytes that a block's operators read and write, were each a kernel of its own and no cache there."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # torch offers no public one (2.15)

from hybridvit.measure.profile.units import tensors_in

NOTHING_MOVES = ("_unsafe_view", "aten.empty")  # besides views: in the names of operators that touch no number


def moved_bytes(meta: nn.Module, *inputs: Any, **options: Any) -> int:
    """Weights, inputs and outputs of every operator of one call of a `meta_copy`, unfused, in bytes.

    What an operator computes inside itself, such as the matrix of fused attention, moves nothing.
    """
    moved = _Moved()
    with torch.no_grad():
        meta(*inputs, **options)  # computes the position terms
        with moved:
            meta(*inputs, **options)
    return moved.total


class _Moved(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not any(part in str(func) for part in NOTHING_MOVES):
            self.total += sum(map(_bytes, tensors_in((args, kwargs or {}, result))))
        return result


def _bytes(tensor: Tensor) -> int:
    """What there is to read of a tensor: an expanded one lies in less memory than it has numbers."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
