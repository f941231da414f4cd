"""Try a recipe in seconds: what would otherwise fail after an epoch fails now."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from hybridvit.create import create_model
from hybridvit.errors import CheckpointError, DatasetError, UsageError
from hybridvit.main_module import refuse_at_import
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import Task, find_task
from hybridvit.training.engine.optimizer import check_optimizer
from hybridvit.training.fit import fitted, left_over
from hybridvit.training.run.folder import CHECKPOINTS
from hybridvit.training.run.snapshot import newest_snapshot
from hybridvit.training.train import train
from hybridvit.training.trial.miniature import miniature


def dry_run(recipe: Recipe, *, say: Callable[[str], None] = print) -> None:
    """Run two steps of the recipe on the debug size of its family and generated images, in a folder that is removed.

    Passes each stage of a run: data folders (listed, if given), the model at its full size (built without memory), two
    steps with this recipe's losses, augmentation of batches, optimizer and precision, a validation, a save, and a
    resume from the first step, which must end in the same weights. `say` takes one line per stage, and one for each
    thing that is left out or changed. Raises what a run would raise.
    """
    refuse_at_import()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("A dry run is one process, but a launcher has started several. Run it without the launcher.")
    check_optimizer(recipe)
    task = find_task(recipe.task).tried()
    _list_images(recipe, task, say)
    _build_at_full_size(recipe, say)
    with tempfile.TemporaryDirectory(prefix="hybridvit-dry-run-") as scratch:
        small, changed = miniature(recipe, Path(scratch) / "run")
        for line in changed:
            say(line)
        result = train(small, progress=False, task=task)
        last = result.history[-1]
        say(
            f"passed: two steps of {small.model}{_methods(small)} on generated images "
            f"(train loss {last['train_loss']:.3f})"
        )
        say(f"passed: a validation ({result.headline.name} {result.headline.text(last[result.headline.name])})")
        say(f"passed: a save ({result.model.stat().st_size:,} bytes of {result.weights} weights)")
        straight = load_file(result.model)
        _forget_last_step(result.folder)
        resumed = load_file(train(small, resume=True, progress=False, task=task).model)
        different = [name for name, value in straight.items() if not torch.equal(value, resumed[name])]
        if different:
            raise CheckpointError(
                f"Resuming after the first step gave other weights ({different[0]} and {len(different) - 1} more). "
                "On a GPU, kernels that are not deterministic do that; on a CPU it must not happen."
            )
        say("passed: a resume from the first step, with the same weights to the last bit")
    say(f"The recipe runs. Nothing was written to {recipe.output}.")


def _build_at_full_size(recipe: Recipe, say: Callable[[str], None]) -> None:
    """The recipe's own model with its options: a wrong one, or a window that the images do not fill, ends here."""
    with torch.device("meta"):
        model = create_model(recipe.model, image_size=recipe.data.image_size, **recipe.creation)
    count = sum(parameter.numel() for parameter in model.parameters())
    classes = f"{find_task(recipe.task).num_classes:,} classes"
    say(f"passed: {recipe.model} at full size ({count:,} parameters with {classes}; built without memory)")


def _methods(recipe: Recipe) -> str:
    """What the steps did beside learning from labels, in words."""
    parts = [
        f"with {recipe.optim.name}",
        *recipe.methods,
        *(["layer-wise decay"] if recipe.optim.layer_decay < 1 else []),
        *([recipe.precision] if recipe.precision != "32-true" else []),
    ]
    return " " + ", ".join(parts)


def _list_images(recipe: Recipe, task: Task, say: Callable[[str], None]) -> None:
    if not recipe.data.needs_root or not recipe.data.root:
        say("left out: the image folders (the recipe names none)")
        return
    splits = task.open(recipe)
    recipe = fitted(recipe, len(splits.train), 1, say=say)
    if len(splits.train) < recipe.data.total_batch:
        raise DatasetError(
            f"data.total_batch is {recipe.data.total_batch}, but {recipe.data.root} has only {len(splits.train)} "
            "images: an epoch would have no step. Lower it, or add --fit."
        )
    if over := left_over(len(splits.train), recipe.data.total_batch):
        say(over)
    for remark in splits.train.remarks:
        say(f"noted: {remark}")
    names = splits.train.class_names
    classes = f" in {len(names)} classes" if names else ""
    say(
        f"passed: {len(splits.train):,} training and {len(splits.validation):,} validation images{classes} "
        "(listed, not decoded)"
    )


def _forget_last_step(folder: Path) -> None:
    newest = newest_snapshot(folder / CHECKPOINTS)
    if newest is None:
        raise CheckpointError(f"The dry run saved no checkpoint in {folder}.")
    shutil.rmtree(newest)
