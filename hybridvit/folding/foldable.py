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
        kernel = self._kernel_cache.current()
        if kernel is None:
            if uses_batch_statistics(self):
                _check_statistics(x, self.geometry)
                return self.forward_training(x)
            kernel = self._eval_kernel()
        conv = self.geometry
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
        with torch.inference_mode(False), torch.no_grad():  # usable in a later backward, whatever mode this is
            kernel = self.kernel(torch.float64).cast(self.geometry.weight)
        self._kernel_cache.store(kernel, self)
        return kernel

    def train(self, mode: bool = True) -> "ConvEquivalent":
        self._kernel_cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ConvEquivalent":
        self._kernel_cache.clear()
        return super()._apply(fn, recurse)


class _KernelCache:
    """One kernel, the tensors it was made from, and what shows a change of them; a copy of it is empty.

    It is asked in every forward pass, so it walks its own flat lists and not the module tree.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._kernel: Kernel | None = None
        self._norms: list[nn.Module] = []
        self._sources: list[tuple[dict[str, Any], str, Tensor, int, int]] = []

    def store(self, kernel: Kernel, block: nn.Module) -> None:
        """Keep the kernel of `block`, unless its tensors were made in inference mode, which records no writes."""
        self.clear()
        sources = [
            (held, name, tensor)
            for module in block.modules()
            for held in (module._parameters, module._buffers)
            for name, tensor in held.items()
            if tensor is not None and tensor.is_floating_point()
        ]
        if any(tensor.is_inference() for _, _, tensor in sources):
            return
        self._kernel = kernel
        self._norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
        self._sources = [(held, name, tensor, tensor._version, tensor.data_ptr()) for held, name, tensor in sources]

    def current(self) -> Kernel | None:
        """The kernel, if it may be used: no gradient wanted, norms still fixed, no tensor replaced or written to."""
        if self._kernel is None or torch.compiler.is_compiling():
            return None
        gradient = torch.is_grad_enabled()
        for held, name, tensor, version, address in self._sources:
            if held[name] is not tensor or tensor._version != version or tensor.data_ptr() != address:
                return None
            if gradient and tensor.requires_grad:
                return None
        return None if any(norm.training for norm in self._norms) else self._kernel

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
