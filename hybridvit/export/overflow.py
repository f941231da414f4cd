"""Which layers exceed what float16 can hold, asked before a model is converted to it."""

import math

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hybridvit.errors import ExportError
from hybridvit.export.watched import watched

LARGEST = torch.finfo(torch.float16).max  # 65504
INSIDE = "backbone."  # where the model is inside a deployed one


@torch.no_grad()
def check_fits_half(model: nn.Module, batches: list[Tensor]) -> None:
    """Run `model` in fp32 on `batches` and raise ExportError naming the layers whose weights or outputs do not fit.

    Folding multiplies weights by the gain of a BatchNorm, which is large where its variance was small.
    """
    reached: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        _note(reached, name, parameter)

    def see(name: str, module: nn.Module, inputs: object, outputs: object) -> None:
        for each in tree_leaves(outputs):
            if name and isinstance(each, Tensor) and each.is_floating_point():
                _note(reached, name, each)

    with watched(model, see, nn.Module):
        for batch in batches:
            model(batch)
    # a block is named for what it adds itself, such as its input, and not for a layer inside it
    sources = {name: most for name, most in reached.items() if not any(each.startswith(f"{name}.") for each in reached)}
    if sources:
        listed = ", ".join(f"{name.removeprefix(INSIDE)} ({most:.3g})" for name, most in list(sources.items())[:5])
        more = f" and {len(sources) - 5} more" if len(sources) > 5 else ""
        raise ExportError(
            f"float16 holds numbers up to {LARGEST:.0f}, but these exceed it: {listed}{more}. Use --precision bf16 or "
            "fp32, or train with weight decay on these layers."
        )


def _note(reached: dict[str, float], name: str, tensor: Tensor) -> None:
    most = tensor.abs().max().nan_to_num(nan=math.inf).item()
    if most > LARGEST:
        reached[name] = max(reached.get(name, 0.0), most)
