"""When memory is short: a smaller micro-batch that leaves the batch of a step as it is."""

import dataclasses

from hybridvit.errors import OutOfMemory
from hybridvit.recipe.recipe import Recipe


def with_micro_batch(recipe: Recipe, size: int) -> Recipe:
    """The recipe with a number for data.micro_batch."""
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, micro_batch=size))


def micro_batch_sizes(recipe: Recipe, world_size: int) -> list[int]:
    """The sizes that share out a process's part of a step evenly and that the recipe can use, ascending, from two."""
    share = recipe.data.total_batch // world_size
    return [size for size in range(2, share + 1) if share % size == 0 and size % recipe.images_divide_by == 0]


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
