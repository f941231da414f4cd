"""A linear layer for inference on x86 CPUs, whose weight is packed once for oneDNN's kernels.

`torch.nn.functional.linear` repacks the weight in every call, which takes a third of the time of a small batch. The
operators are those that torch.compile uses on CPUs; where they cannot serve, the layer computes as nn.Linear does.
"""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from hybridvit.folding.eval_cache import Remembering, is_traced

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_pack = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class PackedLinear(nn.Linear, Remembering[Tensor]):
    """nn.Linear that keeps a packed copy of its weight (once more its memory) after the first float32 pass on a CPU.

    The copy is made anew when the weight changes. It is not used, and not made, where gradients are wanted, under
    autocast, while a graph is recorded, or with `torch.backends.mkldnn.enabled = False`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._can_pack(x):
            return F.linear(x, self.weight, self.bias)
        packed = self._cache.current()
        if packed is None:
            with torch.inference_mode(False), torch.no_grad():
                packed = _pack(self.weight.contiguous())  # type: ignore[misc]
            self._cache.store(packed, self)
        return _linear(x, packed, self.bias, "none", [], "")  # type: ignore[misc]

    def _can_pack(self, x: Tensor) -> bool:
        return (
            x.dtype == self.weight.dtype == torch.float32
            and x.device.type == self.weight.device.type == "cpu"
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
            and x.numel() > 0
            and _IS_X86
            and _pack is not None
            and _linear is not None
            and bool(torch.backends.mkldnn.enabled)
            and not torch.is_autocast_enabled("cpu")
            and not is_traced()
            and not is_in_torch_dispatch_mode()  # counters and fake tensors see an ordinary linear layer
        )
