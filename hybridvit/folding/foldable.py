"""What can be folded: the two interfaces that `fold` looks for."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybridvit.errors import FoldError, UsageError
from hybridvit.folding.eval_cache import Remembering, is_traced
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
        """`folded` under the name that `timm.utils.reparameterize_model` calls. Raises FoldError in training mode."""
        self.check_foldable(f"this {type(self).__name__}")
        return self.folded()

    def check_foldable(self, label: str) -> None:
        """Raise FoldError, naming the block `label`, if no fixed inference form of it exists."""
        if self.training or uses_batch_statistics(self):
            raise FoldError(
                f"Cannot fold {label}: it is in training mode, and BatchNorm only has a fixed kernel once its "
                "statistics are frozen. Call model.eval() before fold(model)."
            )
        if hooked := _hooked_module(self):
            raise FoldError(
                f"Cannot fold {label}: '{hooked}' in it has forward hooks (pruning and weight_norm set some), which "
                "would be lost. Remove them first."
            )


class ConvEquivalent(Foldable, Remembering[Kernel]):
    """A block that is one convolution once its BatchNorms are fixed, and computes as one in eval mode.

    With fixed norms and no gradient wanted, the kernel is folded once and kept until a weight changes; only writes
    through `tensor.data` leave no trace (call `eval()` after them). Where gradients are wanted (fine-tuning with
    frozen norms) it is rebuilt from the branches in every call, so that they reach each of them. Modules inside that
    have hooks are always called. With batch statistics, one value per channel is a UsageError.
    """

    in_released_form = True

    def __init__(self) -> None:
        super().__init__()
        self.by_branches = False

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
        kernel = self._cache.current()
        if kernel is None:
            if _hooked_module(self):
                return self.forward_branches(x)
            if uses_batch_statistics(self):
                check_batch(len(x), x.shape[-2:], self.geometry.stride[0])
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
        if is_traced():
            return self.kernel()
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            return self.kernel()
        with torch.inference_mode(False), torch.no_grad():  # usable in a later backward, whatever mode this is
            kernel = self.kernel(torch.float64).cast(self.geometry.weight)
        self._cache.store(kernel, self)
        return kernel


@contextmanager
def branch_by_branch(model: nn.Module) -> Iterator[None]:
    """Within it, the blocks of `model` compute all their branches in eval mode too."""
    blocks = [module for module in model.modules() if isinstance(module, ConvEquivalent)]
    before = [block.by_branches for block in blocks]
    for block in blocks:
        block.by_branches = True
    try:
        yield
    finally:
        for block, value in zip(blocks, before, strict=True):
            block.by_branches = value


def uses_batch_statistics(block: nn.Module) -> bool:
    """Whether a BatchNorm in `block` makes its output depend on the rest of the batch."""
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for module in block.modules()
    )


def check_batch(batch: int, size: Sequence[int], stride: int) -> None:
    """Refuse a training batch that leaves BatchNorm one value per channel after a stride.

    Raises:
        UsageError: for one image of at most `stride` pixels a side.
    """
    if batch == 1 and max(size) <= stride:
        raise UsageError(
            f"A training batch of one image of {size[0]}x{size[1]} pixels leaves one value per channel after a stride "
            f"of {stride}, but BatchNorm needs at least two for a variance. Use a batch of 2 or more, a larger image, "
            "or model.eval() to freeze the statistics."
        )


def _hooked_module(block: nn.Module) -> str | None:
    for name, module in block.named_modules():
        if name and (module._forward_hooks or module._forward_pre_hooks):
            return name
    return None
