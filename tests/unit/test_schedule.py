"""The learning rate over a training, in epochs or in optimizer steps."""

from typing import Any

import pytest
import torch

from hybridvit.errors import UsageError
from hybridvit.recipe.groups import OptimConfig, ScheduleConfig
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.engine.optimizer import build_schedule, learning_rate

STEPS_PER_EPOCH = 10


def rates(num_steps: int, **schedule: Any) -> list[float]:
    recipe = Recipe(
        model="fastvit_debug", optim=OptimConfig(lr=1.0), schedule=ScheduleConfig(min_lr=0.0, **schedule), dry_run=True
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_schedule(recipe, optimizer, STEPS_PER_EPOCH)
    found = []
    for step in range(num_steps):
        scheduler.step_update(step)
        found.append(learning_rate(optimizer))
    return found


def test_poly_falls_to_zero_over_the_steps() -> None:
    found = rates(81, kind="poly", steps=80)
    assert found == pytest.approx([(1 - step / 80) ** 0.9 for step in range(81)])
    straight = rates(41, kind="poly", epochs=4, warmup_epochs=0, power=1.0)
    assert straight == pytest.approx([1 - step / 40 for step in range(41)])


def test_a_warm_up_of_steps_rises_to_the_schedule() -> None:
    found = rates(20, kind="poly", steps=100, power=1.0, warmup_steps=5, warmup_lr=0.5)
    assert found[:6] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
    assert rates(12, epochs=10, warmup_steps=4, kind="constant", warmup_lr=0.0)[:6] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1, 1]
    )


def test_drops_are_to_a_tenth_at_the_end_of_the_epoch_named() -> None:
    found = rates(40, kind="drops", epochs=4, warmup_epochs=0, drop_epochs=(2, 3))
    assert found == pytest.approx([1.0] * 20 + [0.1] * 10 + [0.01] * 10)


def test_two_lengths_and_drops_without_a_use_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'schedule.steps' \(80\) and 'schedule.epochs' \(4\) both say how long to"):
        ScheduleConfig(steps=80, epochs=4)
    with pytest.raises(UsageError, match=r"'schedule.cooldown_epochs' is 2, but the schedule is one of 80 steps"):
        ScheduleConfig(steps=80, cooldown_epochs=2)
    with pytest.raises(UsageError, match=r"kind drops needs epochs in ascending order, such as \[8, 11\], and no"):
        ScheduleConfig(kind="drops")
    with pytest.raises(UsageError, match=r"'schedule.kind' \(poly\) and 'schedule.drop_epochs' \(\[8, 11\]\) do not"):
        ScheduleConfig(kind="poly", drop_epochs=(8, 11))
