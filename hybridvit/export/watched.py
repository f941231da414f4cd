"""See what passes through the modules of a model while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

See = Callable[[str, nn.Module, tuple[Tensor, ...], object], None]
"""Told the name of a module, the module, its inputs and its output."""


@contextmanager
def watched(model: nn.Module, see: See, *kinds: type[nn.Module]) -> Iterator[None]:
    """Within the block `see` is told of every call of the modules of these kinds."""
    chosen = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    handles = [module.register_forward_hook(partial(see, name)) for name, module in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
