"""How much memory a recipe needs on each device, without allocating it.

The step is carried out on tensors that have a shape but no data, and what they would take is added up as they come and
go: torch's FakeTensorMode. That is exact for what the model and autograd hold; not counted are the work space of the
kernels, the waste of the allocator and, on a GPU, the context of CUDA.
"""

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybridvit.build import build
from hybridvit.create import create_model
from hybridvit.models.whole import WholeModel
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import find_task
from hybridvit.training.engine.devices import batch_shape
from hybridvit.training.engine.freezing import freeze_parts
from hybridvit.training.engine.memory import micro_batch_sizes, with_micro_batch
from hybridvit.training.engine.optimizer import build_optimizer
from hybridvit.training.trial.miniature import debug_size

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PROBE = 4  # images of the smaller of two steps that tell what an image takes
MARGIN, ALLOWANCE = 0.9, 350 * 2**20  # that share of a memory, less these bytes: the rest is for what is not counted


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on each device."""

    devices: int
    micro_batch: int  # images on a device at once
    accumulate: int  # micro-batches per step
    weights: int  # and the statistics of BatchNorm
    averaged: int  # the moving average of the weights
    optimizer: int
    teacher: int
    exchange: int  # the gradients' copy that the devices exchange
    step: int  # activations and gradients, at their peak

    @property
    def total(self) -> int:
        return sum(size for _, size in self.lines())

    def lines(self) -> list[tuple[str, int]]:
        """What it is made of, in words, without what is not there."""
        parts = [
            ("weights", self.weights),
            ("moving average", self.averaged),
            ("optimizer", self.optimizer),
            ("teacher", self.teacher),
            ("gradient exchange", self.exchange),
            (f"activations and gradients of {self.micro_batch} images", self.step),
        ]
        return [(title, size) for title, size in parts if size]


def estimate_memory(recipe: Recipe, *, devices: int, num_classes: int = 1000) -> MemoryEstimate:
    """What each of `devices` holds at the peak of a step. `data.micro_batch: auto` counts as the whole share.

    Raises UsageError for a batch that the devices cannot share evenly, and for model options that do not exist.
    """
    if recipe.data.micro_batch == "auto":
        recipe = with_micro_batch(recipe, 0)
    micro_batch, accumulate = batch_shape(recipe, devices)
    parts = _Parts(recipe, num_classes)
    weights, buffers = size_of(parts.model.parameters()), size_of(parts.model.buffers())
    trained = size_of(_trained(parts.model))
    shards = devices if recipe.strategy == "fsdp" else 1
    return MemoryEstimate(
        devices=devices,
        micro_batch=micro_batch,
        accumulate=accumulate,
        weights=weights // shards + 2 * buffers,  # the loop keeps a copy of the buffers, to refuse a step
        averaged=(weights // shards + buffers) if recipe.ema.decay else 0,
        optimizer=round(_state_per_weight(recipe) * trained) // shards,
        teacher=sum(size_of([*each.parameters(), *each.buffers()]) for each in parts.companions),
        exchange=trained if devices > 1 and shards == 1 else 0,
        # gradients are shared out as soon as they are there
        step=parts.step_bytes(micro_batch, accumulates=accumulate > 1) - trained + trained // shards,
    )


def usable(memory: int) -> int:
    """Bytes of a device's memory that an estimate may fill (benchmarks/memory_estimate.py has what it leaves out)."""
    return int(MARGIN * memory) - ALLOWANCE


def fitting_micro_batch(recipe: Recipe, *, devices: int, num_classes: int, memory: int) -> int:
    """The largest micro-batch that fits into `memory` bytes of a device and divides its share; 0 if none does."""

    batch_shape(with_micro_batch(recipe, 0), devices)  # refuses what cannot be shared out
    parts = _Parts(recipe, num_classes)
    few, more = (parts.step_bytes(images, accumulates=True) for images in (PROBE, 2 * PROBE))
    per_image = (more - few) / PROBE  # activations grow with the images, and nothing else does
    for size in reversed(micro_batch_sizes(recipe, devices)):
        if few + per_image * (size - PROBE) > usable(memory):
            continue
        need = estimate_memory(with_micro_batch(recipe, size), devices=devices, num_classes=num_classes).total
        if need <= usable(memory):
            return size
    return 0


def size_of(tensors: Any) -> int:
    """Bytes of tensors, as they would be on a device."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Parts:
    """The recipe's model and what answers beside it, on the meta device."""

    def __init__(self, recipe: Recipe, num_classes: int) -> None:
        self.recipe, task = recipe, find_task(recipe.task)
        with torch.device("meta"):
            self.model = cast(WholeModel, create_model(recipe.model, num_classes=num_classes, **recipe.creation))
            freeze_parts(self.model, recipe.freeze)
            self.companions = list(task.companions(recipe, num_classes))
        self.shape = task.example(recipe, 1).inputs.shape[1:]
        self.layout = torch.contiguous_format if recipe.channels_last is False else torch.channels_last
        if recipe.grad_checkpointing:
            self.model.set_grad_checkpointing(True)

    def step_bytes(self, images: int, *, accumulates: bool) -> int:
        """The peak of what a forward and a backward pass hold beside the weights."""
        recipe = self.recipe
        model, others = copy.deepcopy(self.model), copy.deepcopy(self.companions)
        if recipe.learns_from_average:
            others.append(copy.deepcopy(self.model))  # in eval mode it would look at its data
        model.to(memory_format=self.layout)
        precision = AUTOCAST.get(recipe.precision)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            for other in others:
                other.to_empty(device="cpu")
            with _Counter() as counter:
                if accumulates:  # the gradients of the micro-batches before
                    for parameter in _trained(model):
                        parameter.grad = torch.zeros_like(parameter)
                batch = torch.empty(images, *self.shape).to(memory_format=self.layout)
                with torch.autocast("cpu", precision, enabled=precision is not None):
                    loss = torch.stack([out.float().logsumexp(1).mean() for out in tree_leaves(model(batch))]).sum()
                    with torch.no_grad():
                        for other in others:
                            other(batch)
                loss.backward()
        return max(counter.peak, size_of(_trained(model)))


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class _Counter(TorchDispatchMode):
    """Adds up the bytes of the storages that are alive, and keeps the highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._known:
            self._known.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _state_per_weight(recipe: Recipe) -> float:
    """Bytes the optimizer keeps for each byte of weights, from one step on a debug model."""
    model = build(debug_size(recipe.model))
    optimizer = build_optimizer(recipe, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    return size_of(tensor for tensor in state if tensor.ndim) / size_of(model.parameters())
