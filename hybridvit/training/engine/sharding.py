"""Strategy fsdp: each process keeps a part of every weight; what is saved and validated is whole.

A snapshot holds the same tensors under either strategy, so a run can go on with the other one, or with another number
of processes.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from hybridvit.models.backbone import Backbone


def shard(model: nn.Module, mesh: DeviceMesh, *, forward_only: bool = False) -> nn.Module:
    """Share the weights out over the processes of `mesh`, in place: a process holds a part of each tensor.

    The weights of a stage's block come together when it computes, so no process holds all of them at once. Weights
    become contiguous: the parts of a channels-last kernel are no slices of it. `forward_only` is for a model without a
    backward pass: the weights of the stem and the head, which would be kept for it, are given back after each pass.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_contiguous():
                setattr(module, name, nn.Parameter(parameter.detach().contiguous(), parameter.requires_grad))
    data_parallel = mesh["data_parallel"] if "data_parallel" in (mesh.mesh_dim_names or ()) else mesh
    for backbone in [module for module in model.modules() if isinstance(module, Backbone)]:
        for stage in backbone.stages:
            for part in _parts(stage):
                fully_shard(part, mesh=data_parallel)
    fully_shard(model, mesh=data_parallel, reshard_after_forward=True if forward_only else None)
    return model


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def gathered(value: Any, *, keep: bool) -> Any:
    """Nested dicts and lists with every shared-out tensor made whole, on the CPU; None in its place unless `keep`.

    All processes must call it at the same time; one after the other, so that only one tensor at a time is whole.
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: gathered(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(item, keep=keep) for item in value)
    return value


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What this process keeps of a tensor that all processes have, shared out as `like` is; all of it if it is not."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def load_whole(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """`load_state_dict`, strict, from whole tensors into a module whose weights may be shared out."""
    present = module.state_dict()
    module.load_state_dict({name: part_of(value, present.get(name, value)) for name, value in state.items()})


class WholeCopy:
    """Gives a module with all of its weights for validation and keeping: the module itself unless it is shared out.

    The empty form is copied before the weights are shared out and stays in the host's memory.
    """

    def __init__(self, module: nn.Module, *, needed: bool) -> None:
        self._template = copy.deepcopy(module).cpu() if needed else None

    def of(self, module: nn.Module, device: torch.device) -> nn.Module:
        """`module`, or a new copy of it on `device` with whole weights. All processes must call it together."""
        if self._template is None:
            return module
        whole = copy.deepcopy(self._template).to(device)
        with torch.no_grad():
            for (_, target), (_, source) in zip(whole.state_dict().items(), module.state_dict().items(), strict=True):
                target.copy_(source.full_tensor() if isinstance(source, DTensor) else source)
        return whole.train(module.training)


def _parts(stage: nn.Module) -> list[nn.Module]:
    """The children of a stage, and those of its sequences, that have weights: what is gathered at a time."""
    parts: list[nn.Module] = []
    for child in stage.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            parts += _parts(child)
        elif any(True for _ in child.parameters()):
            parts.append(child)
    return parts
