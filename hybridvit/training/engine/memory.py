"""When memory is short: what says so, and a smaller micro-batch that leaves the batch of a step as it is."""

import dataclasses
import sys

import torch

from hybridvit.errors import OutOfMemory
from hybridvit.recipe.recipe import Recipe

WORDS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "std::bad_alloc")
"""What PyTorch's RuntimeErrors say on a CPU, where they have no type of their own."""

UNDER_A_LIMIT = ("could not create a primitive", "could not create a memory object", "Cannot allocate memory")
"""What other libraries say; they say it for other reasons too, so it counts only where the process has a limit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device's, or the host's, memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = WORDS + (UNDER_A_LIMIT if _limit_bytes() is not None else ())
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _limit_bytes() -> int | None:
    """What the address space of this process may grow to, None without a limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def with_micro_batch(recipe: Recipe, size: int) -> Recipe:
    """The recipe with a number for data.micro_batch."""
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, micro_batch=size))


def micro_batch_sizes(recipe: Recipe, world_size: int) -> list[int]:
    """The sizes that share out a process's part of a step evenly, ascending: two images at least, pairs for mixing."""
    share = recipe.data.total_batch // world_size
    pairs = bool(recipe.augment.mixup or recipe.augment.cutmix)
    return [size for size in range(2, share + 1) if share % size == 0 and not (pairs and size % 2)]


def out_of_memory(recipe: Recipe, world_size: int) -> OutOfMemory:
    """The error of a run whose micro-batch is too large, with the largest of at most half of it that is legal."""
    share = recipe.data.total_batch // world_size
    held = recipe.data.micro_batch if isinstance(recipe.data.micro_batch, int) else 0
    held = min(held, share) if held else share
    smaller = [size for size in micro_batch_sizes(recipe, world_size) if size <= held // 2]
    if smaller:
        fix = f"Use --data.micro_batch {smaller[-1]}: the step still sees {recipe.data.total_batch} images."
    else:
        others = "" if recipe.grad_checkpointing else "--grad_checkpointing true, "
        fix = f"It cannot be smaller. Use {others}more devices with --strategy fsdp, or a smaller --data.image_size."
    return OutOfMemory(
        f"A micro-batch of {held} images at {recipe.data.image_size} px needs more memory than the device has. {fix}"
    )
