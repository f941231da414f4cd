"""Optimizer and learning rate over the training, both timm's."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from torch import nn

from hybridvit.errors import UsageError, nearest
from hybridvit.training.recipe import Recipe


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer over the weights of `model`; biases and norms are not decayed."""
    return create_optimizer_v2(
        model,
        opt=recipe.optim.name,
        lr=recipe.optim.lr,
        weight_decay=recipe.optim.weight_decay,
        momentum=recipe.optim.momentum,
    )


def check_optimizer(recipe: Recipe) -> None:
    """Raise UsageError, with the nearest names, for an optimizer that timm does not have."""
    optimizers = [str(name) for name in list_optimizers()]
    if recipe.optim.name.lower() not in optimizers:
        raise UsageError(
            f"Recipe key 'optim.name' is '{recipe.optim.name}', which is no optimizer of timm. Nearest: "
            f"{nearest(recipe.optim.name, optimizers)}."
        )


def build_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Scheduler:
    """The learning rate as a function of the optimizer steps done: linear warm-up, then cosine or constant."""
    schedule = recipe.schedule
    warmup: dict[str, Any] = {
        "warmup_t": round(schedule.warmup_epochs * steps_per_epoch),
        "warmup_lr_init": schedule.warmup_lr,
        "t_in_epochs": False,
    }
    if schedule.kind == "constant":
        return StepLRScheduler(optimizer, decay_t=2**62, decay_rate=1.0, **warmup)
    return CosineLRScheduler(
        optimizer, t_initial=schedule.epochs * steps_per_epoch, lr_min=schedule.min_lr, cycle_limit=1, **warmup
    )
