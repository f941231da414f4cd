"""A linear layer for inference on x86 CPUs, whose weight is packed once for oneDNN's kernels.

`torch.nn.functional.linear` repacks the weight in every call, which takes a third of the time of a small batch. The
operators are those that torch.compile uses on CPUs; where they cannot serve, the layer computes as nn.Linear does.
"""

import platform
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from hybridvit.tracing import Unscriptable, in_transform, leaf

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_pack = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class PackedLinear(nn.Linear, Unscriptable):
    """nn.Linear that keeps a packed copy of its frozen weight (once more its memory) after the first pass on a CPU.

    fastervit_0 is 1.06 to 1.14 times as fast with it (`benchmarks/second_forms.py`). The copy is made anew when the
    weight is written or replaced; only a write through `weight.data` leaves no trace. It is not used where the weight
    is not frozen or a gradient is wanted, in another dtype than float32, under autocast, while a graph is recorded, in
    transforms of torch.func, or with `torch.backends.mkldnn.enabled = False`.
    """

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, "out"]) -> None:
        super().__init__(weight.shape[1], weight.shape[0], device="meta")
        self.weight, self.bias = (nn.Parameter(values, requires_grad=False) for values in (weight, bias))
        self._packed: tuple[Tensor, int, int, Tensor] | None = None  # weight, its version, its address, the copy

    def reset_parameters(self) -> None:
        """Nothing: the weights are given, and to draw others first takes longer than all else here."""

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        if not self._can_pack(x):
            return F.linear(x, self.weight, self.bias)
        weight, packed = self.weight, self._packed
        if packed is None or packed[0] is not weight or packed[1:3] != (weight._version, weight.data_ptr()):
            with torch.inference_mode(False), torch.no_grad():
                copied = _pack(weight.contiguous())  # type: ignore[misc]
            self._packed = packed = (weight, weight._version, weight.data_ptr(), copied)
        return _linear(x, packed[3], self.bias, "none", [], "")  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # copies, also in files and other processes, pack for themselves

    def _can_pack(self, x: Tensor) -> bool:
        return (
            x.dtype == self.weight.dtype == torch.float32
            and x.device.type == self.weight.device.type == "cpu"
            and not self.weight.requires_grad  # an optimizer may write it, and fused ones leave no trace
            and not (torch.is_grad_enabled() and x.requires_grad)
            and x.numel() > 0
            and _IS_X86
            and _pack is not None
            and _linear is not None
            and bool(torch.backends.mkldnn.enabled)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not in_transform(x)  # the packed kernel has no derivative, and would drop a forward one
            and not self.weight.is_inference()  # which records no writes
            and not is_in_torch_dispatch_mode()  # counters and fake tensors see an ordinary linear layer
        )
