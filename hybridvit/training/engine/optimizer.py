"""Optimizer and learning rate over the training, both timm's."""

import inspect
from functools import partial
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
    param_groups_weight_decay,
)
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from torch import nn

from hybridvit.errors import UsageError, nearest
from hybridvit.models.with_head import WithHead
from hybridvit.recipe.recipe import Recipe


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer over the weights of `model`; biases and norms are not decayed.

    With `layer_decay` the learning rate of a layer is that of the layer after it times the decay; the layers are those
    of the model's `group_matcher`, and the classifier with the last of them has the recipe's rate. With `backbone_lr`
    the backbone of a model with a head has that share of it.
    """
    optim = recipe.optim
    return create_optimizer_v2(
        model,
        opt=optim.name,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        layer_decay=optim.layer_decay if optim.layer_decay < 1 else None,
        param_group_fn=partial(_two_rates, recipe) if optim.backbone_lr != 1 else None,
        **_momentum(recipe),
    )


def _two_rates(recipe: Recipe, model: nn.Module) -> list[dict[str, Any]]:
    """timm's groups, those with decay and those without, each in two: of the head, and of the backbone."""
    assert isinstance(model, WithHead)
    of_backbone = {id(parameter) for parameter in model.pyramid.parameters()}
    groups = []
    for group in param_groups_weight_decay(
        model, recipe.optim.weight_decay, no_weight_decay_list=model.no_weight_decay()
    ):
        inside = [parameter for parameter in group["params"] if id(parameter) in of_backbone]
        outside = [parameter for parameter in group["params"] if id(parameter) not in of_backbone]
        groups.append({**group, "params": outside, "lr_scale": 1.0})
        groups.append({**group, "params": inside, "lr_scale": recipe.optim.backbone_lr})
    return [group for group in groups if group["params"]]


def check_optimizer(recipe: Recipe) -> None:
    """Raise UsageError for an optimizer that timm does not have, with the nearest names, or a key it has no use for."""
    optimizers = [str(name) for name in list_optimizers()]
    if recipe.optim.name.lower() not in optimizers:
        raise UsageError(
            f"Recipe key 'optim.name' is '{recipe.optim.name}', which is no optimizer of timm. "
            f"{nearest(recipe.optim.name, optimizers)}."
        )
    try:
        get_optimizer_class(recipe.optim.name.lower().removeprefix("lookahead_"))
    except (AssertionError, ImportError) as error:
        raise UsageError(
            f"Recipe key 'optim.name' is '{recipe.optim.name}', which does not run here: {error}."
        ) from error
    if recipe.optim.momentum is not None and not _momentum(recipe):
        raise UsageError(
            f"Recipe key 'optim.momentum' is {recipe.optim.momentum}, but {recipe.optim.name} has neither momentum nor "
            "betas. Leave it out."
        )


def learning_rate(optimizer: Any) -> float:
    """The schedule's present value: that of the last layers, where layer-wise decay gives the others less."""
    return next(group["lr"] for group in optimizer.param_groups if group.get("lr_scale", 1.0) == 1.0)


def build_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Scheduler:
    """The learning rate as a function of the optimizer steps done: linear warm-up, then as `schedule.kind` says."""
    schedule = recipe.schedule
    warmup: dict[str, Any] = {
        "warmup_t": schedule.warmup(steps_per_epoch),
        "warmup_lr_init": schedule.warmup_lr,
        "t_in_epochs": False,
    }
    if schedule.kind == "constant":
        return StepLRScheduler(optimizer, decay_t=2**62, decay_rate=1.0, **warmup)
    length = schedule.length(steps_per_epoch)
    if schedule.kind == "drops":
        drops = [round(epoch * steps_per_epoch) + 1 for epoch in schedule.drop_epochs]  # timm drops a step early
        return MultiStepLRScheduler(optimizer, decay_t=drops, decay_rate=0.1, warmup_prefix=False, **warmup)
    if schedule.kind == "poly":
        return PolyLRScheduler(
            optimizer, t_initial=length, power=schedule.power, lr_min=schedule.min_lr, cycle_decay=0.5, **warmup
        )
    return CosineLRScheduler(
        optimizer,
        t_initial=length,
        lr_min=schedule.min_lr,
        cycle_limit=1,
        cycle_decay=0.5,  # of a cycle that never comes; at 1, timm warns of schedules of one step
        **warmup,
    )


def _momentum(recipe: Recipe) -> dict[str, Any]:
    """The recipe's momentum as the optimizer takes it: a momentum, or the first of its betas; nothing if it is unset.

    Betas that are set keep the others at the optimizer's own values, of which some have three.
    """
    if recipe.optim.momentum is None:
        return {}
    name = recipe.optim.name.lower().removeprefix("lookahead_")
    info = get_optimizer_info(name)
    if info.has_momentum:
        return {"momentum": recipe.optim.momentum}
    optimizer_class = get_optimizer_class(name, bind_defaults=False)
    betas = inspect.signature(optimizer_class).parameters.get("betas")
    if betas is None or not isinstance(betas.default, tuple):
        return {}
    return {"betas": (recipe.optim.momentum, *betas.default[1:])}
