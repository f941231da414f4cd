"""What the models do when torch follows them: symbolic traces of torch.fx, transforms of torch.func, torch.jit.script.

A symbolic trace, of which torchvision and timm make their feature extractors, goes through a model with stand-ins for
tensors, which have no sizes. What chooses by sizes in Python cannot be followed: it becomes one node of the graph, and
computes as ever when the graph runs.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.fx import Proxy, Tracer

from hybridvit.errors import UsageError

Call = TypeVar("Call", bound=Callable[..., Any])


def is_traced(x: object) -> bool:
    """Whether `x` stands for a tensor in a symbolic trace."""
    return isinstance(x, Proxy)


def is_recorded(x: object) -> bool:
    """Whether a compiler, `torch.jit.trace` or a symbolic trace records what is done to `x`, for other sizes too."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_traced(x)


def forget_shape(x: Tensor) -> None:
    """Have a symbolic trace know its input `x` as a tensor, whatever the annotation says of its shape.

    The code of a graph is pickled with the names that its annotations are imported by, and shapes have none.
    """
    cast(Proxy, x).node.type = Tensor


def in_transform(x: Tensor) -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp) is running, or `x` carries a forward derivative.

    Fused kernels know neither: some raise, some would drop the derivative. torch 2.14 has no public name for the first.
    """
    return torch._C._are_functorch_transforms_active() or unpack_dual(x).tangent is not None


def one_node(function: Call) -> Call:
    """`function(x, ...)`, which a trace takes for one operation, and which TorchScript cannot read."""

    @wraps(function)
    def called(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Proxy):
            return x.tracer.create_proxy("call_function", called, (x, *args), kwargs)
        return function(x, *args, **kwargs)

    # What torch.jit.script asks of functions too, so of those that the graph of a trace calls.
    called.__prepare_scriptable__ = partial(_refuse_to_script, f"the function {function.__name__}")  # type: ignore[attr-defined]
    return cast(Call, called)


def leaf(forward: Call) -> Call:
    """The forward pass of a module that a trace takes for one layer, as those of torch.nn; it is `Unscriptable`."""

    @wraps(forward)
    def called(self: nn.Module, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Proxy):
            path = cast(Tracer, x.tracer).path_of_module(self)
            return x.tracer.create_proxy("call_module", path, (x, *args), kwargs)
        return forward(self, x, *args, **kwargs)

    return cast(Call, called)


class Unscriptable(nn.Module):
    """A module that TorchScript cannot read, and says so wherever it is inside of what is scripted."""

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script asks each module for first.

        Raises:
            UsageError: always.
        """
        _refuse_to_script(f"a {type(self).__name__}")


def _refuse_to_script(what: str) -> NoReturn:
    raise UsageError(
        f"torch.jit.script cannot read {what} of hybridvit, whose annotations are shapes: use "
        "torch.export.export(model, (images,)), torch.jit.trace(model, images), or `hybridvit export` for a file "
        "that runs without Python."
    )
