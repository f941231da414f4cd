"""What a block computes from its weights alone, kept in eval mode for as long as nothing shows a change of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.optimizer import register_optimizer_step_post_hook

from hybridvit.folding.batch_norm import is_batch_norm

Value = TypeVar("Value")
Itself = TypeVar("Itself", bound="Remembering[Any]")


class EvalCache(Generic[Value]):
    """Values made from the weights of one module, by key, and what shows a change of these weights; a copy is empty.

    It is asked in every forward pass, so it walks its own flat lists and not the module tree. The values that were
    used last stay, up to `max_bytes` in all; a value larger than that is not kept.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._step = 0
        self._modules: list[tuple[dict[str, nn.Module | None], str, nn.Module]] = []
        self._norms: list[tuple[nn.Module, float]] = []
        self._tensors: list[tuple[Mapping[str, Tensor | None], str, Tensor, int, int]] = []

    def store(self, value: Value, module: nn.Module, *, key: Hashable = None, num_bytes: int = 0) -> None:
        """Keep what was made from `module`, unless its tensors come from inference mode, which records no writes."""
        if self.max_bytes is not None and num_bytes > self.max_bytes:
            return
        if not self._is_current():
            self.clear()
            if not self._record(module):
                return
        self._values[key] = (value, num_bytes)
        if self.max_bytes is not None:
            while sum(size for _, size in self._values.values()) > self.max_bytes:
                self._values.popitem(last=False)

    def current(self, key: Hashable = None) -> Value | None:
        """The value, if it may be used: no gradient wanted, norms fixed, no module or tensor replaced or written."""
        if is_traced() or key not in self._values or not self._is_current():
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def _record(self, module: nn.Module) -> bool:
        modules = list(module.modules())
        holders: list[Mapping[str, Tensor | None]] = []
        for part in modules:
            holders += [part._parameters, part._buffers]
        tensors = [
            (held, name, tensor)
            for held in holders
            for name, tensor in held.items()
            if tensor is not None and tensor.is_floating_point()
        ]
        if any(tensor.is_inference() for _, _, tensor in tensors):
            return False
        self._step = _OptimizerSteps.count
        self._modules = [
            (part._modules, name, child)
            for part in modules
            for name, child in part._modules.items()
            if child is not None
        ]
        self._norms = [(part, cast(float, part.eps)) for part in modules if is_batch_norm(part)]
        self._tensors = [(held, name, tensor, tensor._version, tensor.data_ptr()) for held, name, tensor in tensors]
        return True

    def _is_current(self) -> bool:
        if self._step != _OptimizerSteps.count:
            return False
        gradient = torch.is_grad_enabled()
        for held, name, tensor, version, address in self._tensors:
            if held.get(name) is not tensor or tensor._version != version or tensor.data_ptr() != address:
                return False
            if gradient and tensor.requires_grad:
                return False
        for parent, name, module in self._modules:
            if parent.get(name) is not module or module._forward_hooks or module._forward_pre_hooks:
                return False
        for norm, eps in self._norms:
            if norm.eps != eps or (norm.training and isinstance(norm, _BatchNorm)):
                return False
        return bool(self._tensors)

    def __deepcopy__(self, memo: dict[int, object]) -> "EvalCache[Value]":
        return EvalCache(self.max_bytes)

    def __reduce__(self) -> tuple[type["EvalCache[Value]"], tuple[int | None]]:
        return EvalCache, (self.max_bytes,)


class Remembering(nn.Module, Generic[Value]):
    """A module with an `EvalCache`, which forgets wherever writes may have left no trace: `train`, `eval` and `to`."""

    max_bytes: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self._cache: EvalCache[Value] = EvalCache(self.max_bytes)

    def train(self: Itself, mode: bool = True) -> Itself:
        self._cache.clear()
        return super().train(mode)

    def _apply(self: Itself, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Itself:
        self._cache.clear()
        return super()._apply(fn, recurse)


class _OptimizerSteps:
    """How many optimizer steps this process has made: fused ones leave no trace on the tensors that they write."""

    count = 0

    @classmethod
    def add(cls, *_: object) -> None:
        cls.count += 1


register_optimizer_step_post_hook(_OptimizerSteps.add)


def is_traced() -> bool:
    """Whether a graph is being recorded: nothing may be remembered then."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
