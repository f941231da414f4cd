"""Which layers exceed what float16 can hold, asked before a model is converted to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hybridvit.errors import ExportError

LARGEST = torch.finfo(torch.float16).max  # 65504


@torch.no_grad()
def check_fits_half(model: nn.Module, batches: list[Tensor]) -> None:
    """Run `model` in fp32 on `batches` and raise ExportError naming the layers whose weights or outputs do not fit.

    Folding multiplies weights by the gain of a BatchNorm, which is large where its variance was small.
    """
    reached: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if (largest := parameter.abs().max().item()) > LARGEST:
            reached[name] = largest
    with _watching(model, reached):
        for batch in batches:
            model(batch)
    if reached:
        listed = ", ".join(f"{name} ({largest:.3g})" for name, largest in list(reached.items())[:5])
        more = f" and {len(reached) - 5} more" if len(reached) > 5 else ""
        raise ExportError(
            f"float16 holds numbers up to {LARGEST:.0f}, but these exceed it: {listed}{more}. Use --precision bf16 or "
            "fp32, or train with weight decay on these layers."
        )


@contextmanager
def _watching(model: nn.Module, reached: dict[str, float]) -> Iterator[None]:
    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, outputs: object) -> None:
            for each in tree_leaves(outputs):
                if isinstance(each, Tensor) and each.is_floating_point():
                    largest = each.abs().max().item()
                    if not largest <= LARGEST:  # NaN too
                        reached[name] = max(reached.get(name, 0.0), largest)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
