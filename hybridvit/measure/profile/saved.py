"""What autograd keeps for the backward pass, by block: deterministic bytes, on any device."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridvit.measure.profile.backward import example_targets
from hybridvit.measure.profile.units import Unit, watched

BETWEEN = ""  # the key of what is saved in none of the units: between them, and by the loss


def saved_bytes(model: nn.Module, units: Sequence[Unit], images: Tensor) -> dict[str, int]:
    """The bytes that one forward pass and its loss save, by the path of the unit that saves them first.

    Storages count once however often they are saved, and weights and statistics, which are there anyway, not at all.
    """
    resident = {storage_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found = {unit.path: 0 for unit in units} | {BETWEEN: 0}
    running = [BETWEEN]
    seen: set[int] = set()

    def before(unit: Unit, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        running.append(unit.path)

    def after(unit: Unit, result: Any) -> None:
        running.pop()

    def keep(tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        if storage not in seen and storage not in resident:
            seen.add(storage)
            found[running[-1]] += tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would keep its own graph alive

    with watched(units, before=before, after=after), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = F.cross_entropy(model(images), example_targets(model, images))
    del loss  # only now may an address be used again
    return found


def storage_of(tensor: Tensor) -> int:
    """The address of the memory that a tensor lies in; views share it."""
    return tensor.untyped_storage().data_ptr()
