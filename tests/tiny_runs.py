"""Runs of seconds: a recipe, a task that can be disturbed, and the comparison of two states."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.generated import GeneratedImages
from hybridvit.recipe.groups import DataConfig, EmaConfig, ScheduleConfig
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.classify.task import ClassifyTask
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.task import Moment
from hybridvit.training.train import train

TINY = Recipe(
    model="fastvit_debug",
    model_options={"drop_path_rate": 0.2},
    data=DataConfig(source="generated", image_size=32, total_batch=8, micro_batch=4, workers=0),
    augment=dataclasses.replace(AugmentConfig(), rand_augment=""),
    schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
    ema=EmaConfig(decay=0.9),
    save_every=2 / 3,  # every two of the three steps of an epoch
    accelerator="cpu",
)
LOSSES_PER_STEP = 2  # micro-batches


class Interruption(Exception):
    """Stands for anything that ends a run without a word."""


class TinyTask(ClassifyTask):
    """Three steps an epoch, two images left over; `disturb` is called before each loss and each validation."""

    def __init__(self, recipe: Recipe, fabric: Fabric, disturb: Callable[[str, int], None] = lambda *_: None) -> None:
        super().__init__(recipe, fabric)
        self.images = GeneratedImages(length=26, training=True)
        self.calls = {"loss": 0, "validate": 0}
        self.disturb = disturb

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        self._count("loss")
        return super().loss(model, images, labels, moment)

    def validate(self, model: nn.Module) -> dict[str, float]:
        metrics = super().validate(model)
        self._count("validate")
        return metrics

    def _count(self, what: str) -> None:
        self.disturb(what, self.calls[what])
        self.calls[what] += 1


def run(
    recipe: Recipe, *, disturb: Callable[[str, int], None] = lambda *_: None, resume: bool = False
) -> dict[str, Any]:
    """Train, and give back all that was saved at the end."""
    result = train(
        recipe, resume=resume, progress=False, build_task=lambda recipe, fabric: TinyTask(recipe, fabric, disturb)
    )
    newest = newest_snapshot(result.folder / "checkpoints")
    assert newest is not None
    return read_snapshot(newest)


def assert_same_bits(left: Any, right: Any, name: str = "state") -> None:
    if isinstance(left, Tensor):
        assert torch.equal(left, right), name
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), name
        for key in left.keys() - {"images_per_second"}:
            assert_same_bits(left[key], right[key], f"{name}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), name
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same_bits(one, other, f"{name}/{index}")
    else:
        assert left == right, name
