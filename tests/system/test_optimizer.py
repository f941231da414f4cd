"""The optimizer: rates of layers by depth, schedules that keep their ratio, momentum as it was set."""

import dataclasses
from typing import Any

import pytest
import torch
from conftest import contract_model
from tiny_runs import PLAIN
from torch import nn

from hybridvit.errors import UsageError
from hybridvit.recipe.groups import OptimConfig, ScheduleConfig
from hybridvit.training.engine.optimizer import build_optimizer, build_schedule, check_optimizer, learning_rate


@pytest.mark.parametrize(
    "name", ["fastvit_debug", "fastvit_ma36", "fastervit_debug", "fastervit_4", "swin_debug_hat", "swin_tiny_hat"]
)
def test_layer_wise_decay_takes_every_weight_once_in_order_of_depth(name: str) -> None:
    with torch.device("meta"):
        model = contract_model(name, num_classes=10)
    recipe = dataclasses.replace(PLAIN, optim=OptimConfig(layer_decay=0.5, weight_decay=0.1))
    groups = build_optimizer(recipe, model).param_groups
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    taken = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(taken) == sorted(names.values())
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), names[id(parameter)]
    depth = {key: _depth(key) for key in scales}
    for one in scales:
        for other in scales:
            if depth[one] < depth[other]:
                assert scales[one] <= scales[other], (one, other)
    assert scales["head.fc.weight"] == 1
    stem = next(scale for key, scale in scales.items() if key.startswith("stem"))
    num_blocks = len({depth[key] for key in scales if depth[key][0] == 1})
    assert stem <= 0.5 ** (num_blocks - len(model.stages))  # a factor for every block


def _depth(name: str) -> tuple[int, int, int]:
    """Stem, stages and the blocks in them, what follows; the first block of a stage goes with what precedes it."""
    parts = name.split(".")
    if parts[0] == "stem":
        return 0, 0, 0
    if parts[0] != "stages":
        return 2, 0, 0
    numbers = [int(part) for part in parts[2:5] if part.isdigit()]
    return 1, int(parts[1]), numbers[0] if numbers else 0


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_the_schedule_scales_the_rates_of_all_layers_alike(kind: Any) -> None:
    schedule = ScheduleConfig(epochs=4, warmup_epochs=1, kind=kind, min_lr=0.0)
    recipe = dataclasses.replace(PLAIN, optim=OptimConfig(lr=1.0, layer_decay=0.5), schedule=schedule)
    optimizer = build_optimizer(recipe, contract_model("fastvit_debug", num_classes=10))
    scheduler = build_schedule(recipe, optimizer, 10)
    for step in (0, 5, 20, 39):
        scheduler.step_update(step)
        rate = learning_rate(optimizer)
        assert rate == max(group["lr"] for group in optimizer.param_groups)
        assert all(group["lr"] == rate * group["lr_scale"] for group in optimizer.param_groups)
        if kind == "constant" and step >= 10:
            assert rate == 1.0
    assert len({group["lr"] for group in optimizer.param_groups}) > 3


@pytest.mark.parametrize(
    ("name", "momentum", "key", "value"),
    [
        ("adamw", None, "betas", (0.9, 0.999)),
        ("lamb", None, "betas", (0.9, 0.999)),
        ("lamb", 0.8, "betas", (0.8, 0.999)),
        ("adan", None, "betas", (0.98, 0.92, 0.99)),
        ("lion", 0.95, "betas", (0.95, 0.99)),
        ("sgd", None, "momentum", 0.9),
        ("sgd", 0.5, "momentum", 0.5),
    ],
)
def test_momentum_is_the_optimizers_own_unless_set(name: str, momentum: float | None, key: str, value: Any) -> None:
    recipe = dataclasses.replace(PLAIN, optim=OptimConfig(name=name, momentum=momentum))
    check_optimizer(recipe)
    optimizer = build_optimizer(recipe, nn.Linear(2, 2))
    assert all(group[key] == value for group in optimizer.param_groups)


def test_momentum_that_an_optimizer_has_no_use_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"optim.momentum' is 0.5, but adagrad has neither momentum nor betas"):
        check_optimizer(dataclasses.replace(PLAIN, optim=OptimConfig(name="adagrad", momentum=0.5)))
    with pytest.raises(UsageError, match=r"at least 0 and below 1"):
        OptimConfig(momentum=1.0)
