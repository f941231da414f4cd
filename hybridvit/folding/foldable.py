"""What can be folded: the two interfaces that `fold` looks for, and the cache of a block's eval-mode kernel."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybridvit.errors import UsageError
from hybridvit.folding.kernel import Kernel


class Foldable(nn.Module, ABC):
    """A block with an exact, cheaper inference form.

    `in_released_form` says whether the published folded checkpoints fold this kind of block too.
    """

    in_released_form = False

    @abstractmethod
    def folded(self) -> nn.Module:
        """The inference form, as a new frozen module; `self` is unchanged.

        Raises:
            FoldError: if a folded value is not finite or does not fit the dtype of the weights.
        """

    def fuse(self) -> nn.Module:
        """`folded` under the name that `timm.utils.reparameterize_model` calls."""
        return self.folded()


class ConvEquivalent(Foldable):
    """A block that is one convolution once its BatchNorms are fixed, and computes as one in eval mode.

    With fixed norms and no gradient wanted, the kernel is folded once and kept until a weight changes. Where
    gradients are wanted (fine-tuning with frozen norms) it is rebuilt from the branches in every call, so that
    they reach each of them. With batch statistics, a batch that leaves one value per channel is a UsageError.
    """

    in_released_form = True

    def __init__(self) -> None:
        super().__init__()
        self.by_branches = False
        self._kernel_cache = _KernelCache()

    @property
    @abstractmethod
    def geometry(self) -> nn.Conv2d:
        """The convolution whose stride, groups, dtype and device the folded one has."""

    @abstractmethod
    def kernel(self, dtype: torch.dtype | None = None) -> Kernel:
        """The whole block as one kernel, differentiable, computed in `dtype` (default: that of the weights)."""

    def folded(self) -> nn.Conv2d:
        return self.kernel(torch.float64).as_conv(self.geometry)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        if self.by_branches:
            return self.forward_branches(x)
        if uses_batch_statistics(self):
            _check_statistics(x, self.geometry)
            return self.forward_training(x)
        kernel, conv = self._eval_kernel(), self.geometry
        return F.conv2d(x, kernel.weight, kernel.bias, conv.stride, kernel.weight.shape[-1] // 2, 1, conv.groups)

    @abstractmethod
    def forward_branches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        """The block as the paper writes it, layer by layer: what its kernel is proven against."""

    def forward_training(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out oh ow"]:
        """The block with batch statistics; same results as `forward_branches`, perhaps in fewer steps."""
        return self.forward_branches(x)

    def _eval_kernel(self) -> Kernel:
        if torch.compiler.is_compiling():
            return self.kernel()
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            self._kernel_cache.clear()  # an optimizer step may follow, and a fused one leaves no trace on the tensors
            return self.kernel()
        return self._kernel_cache.get(self, lambda: self.kernel(torch.float64).cast(self.geometry.weight))

    def train(self, mode: bool = True) -> "ConvEquivalent":
        self._kernel_cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ConvEquivalent":
        self._kernel_cache.clear()
        return super()._apply(fn, recurse)


class _KernelCache:
    """One kernel and the state of the tensors it was made from; a copy of it is empty."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._sources: list[tuple[dict[str, Any], str]] = []
        self._state: list[tuple[int, int, int]] = []
        self._kernel: Kernel | None = None

    def get(self, block: nn.Module, fold: Callable[[], Kernel]) -> Kernel:
        """The kernel of `block`; `fold` makes it anew if a tensor was replaced or written to."""
        if self._kernel is not None and self._state == [_state_of(held[name]) for held, name in self._sources]:
            return self._kernel
        with torch.inference_mode(False), torch.no_grad():
            kernel = fold()  # usable in a later backward too, whatever mode this call runs in
        self._sources = list(_tensors_of(block))
        if not any(held[name].is_inference() for held, name in self._sources):
            self._kernel, self._state = kernel, [_state_of(held[name]) for held, name in self._sources]
        return kernel

    def __deepcopy__(self, memo: dict[int, object]) -> "_KernelCache":
        return _KernelCache()

    def __reduce__(self) -> tuple[type["_KernelCache"], tuple[()]]:
        return _KernelCache, ()


@contextmanager
def branch_by_branch(model: nn.Module) -> Iterator[None]:
    """Within it, the blocks of `model` compute all their branches in eval mode too."""
    blocks = [module for module in model.modules() if isinstance(module, ConvEquivalent)]
    for block in blocks:
        block.by_branches = True
    try:
        yield
    finally:
        for block in blocks:
            block.by_branches = False


def uses_batch_statistics(block: nn.Module) -> bool:
    """Whether a BatchNorm in `block` makes its output depend on the rest of the batch."""
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for module in block.modules()
    )


def _check_statistics(x: Tensor, conv: nn.Conv2d) -> None:
    """Raise UsageError where BatchNorm would see a single value per channel, which has no variance."""
    batch, _, height, width = x.shape
    if batch == 1 and max(height, width) <= conv.stride[0]:
        raise UsageError(
            f"A training batch of one image leaves a map of {height}x{width} pixels here, one value per channel, but "
            "BatchNorm needs at least two for a variance. Use a batch of 2 or more, a larger image, or model.eval() to "
            "freeze the statistics."
        )


def _tensors_of(block: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    for module in block.modules():
        for held in (module._parameters, module._buffers):
            yield from ((held, name) for name, value in held.items() if value is not None and value.is_floating_point())


def _state_of(tensor: Tensor) -> tuple[int, int, int]:
    return id(tensor), tensor._version, tensor.data_ptr()
