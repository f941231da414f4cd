"""A recipe for any images, fitted to those that there are; and what a batch leaves over."""

import dataclasses
from collections.abc import Callable
from typing import Any

from hybridvit.recipe.recipe import Recipe

MOST_WARMUP = 5  # a warm-up is at most one part in so many of a fitted schedule


def fitted(
    recipe: Recipe, num_images: int, world_size: int, *, earlier: Recipe | None = None, say: Callable[[str], None]
) -> Recipe:
    """The recipe with `data.total_batch` and `schedule.warmup_epochs` as `fit` wants them; each change is said.

    A run that goes on keeps the batch that its `earlier` recipe has, as long as there are as many images.
    """
    if not recipe.fit:
        return recipe
    changes: dict[str, Any] = {}
    batch = _batch(recipe, num_images, world_size, earlier)
    if batch != recipe.data.total_batch:
        say(f"A step takes {batch} images, not {recipe.data.total_batch}: there are {num_images} to train on.")
        changes["data"] = dataclasses.replace(recipe.data, total_batch=batch)
    longest = recipe.schedule.epochs / MOST_WARMUP
    if recipe.schedule.warmup_epochs > longest and not recipe.schedule.steps:
        say(f"The warm-up takes {longest:g} of {recipe.schedule.epochs} epochs, not {recipe.schedule.warmup_epochs:g}.")
        changes["schedule"] = dataclasses.replace(recipe.schedule, warmup_epochs=longest)
    return dataclasses.replace(recipe, **changes)


def left_over(num_images: int, total_batch: int) -> str:
    """A sentence on the training images that an epoch has no step for; empty if it sees all."""
    count = num_images % total_batch
    if not count:
        return ""
    others = "others" if count > 1 else "another one"
    return (
        f"Each epoch leaves out {count:,} of {num_images:,} training images, {others} every time: a step takes "
        f"{total_batch:,} (data.total_batch)."
    )


def _batch(recipe: Recipe, num_images: int, world_size: int, earlier: Recipe | None) -> int:
    """The largest that is at most the recipe's, at most the set, and can be shared out; the recipe's if none is."""
    wanted, divisor = recipe.data.total_batch, world_size * recipe.images_divide_by
    if num_images >= wanted:
        return wanted
    if earlier is not None and earlier.fit and earlier.data.total_batch <= num_images:
        return earlier.data.total_batch
    return num_images // divisor * divisor or wanted
