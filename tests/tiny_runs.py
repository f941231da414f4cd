"""Runs of seconds: a recipe, a task that can be disturbed, and the comparison of two states."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.generated import GeneratedImages
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.scores import Scores
from hybridvit.task import Metric, Moment, Objective, Outputs, Place, Splits
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import RunResult, train

TINY = ClassifyRecipe(
    model="fastvit_debug",
    model_options={"drop_path_rate": 0.2},
    data=ClassifyData(source="generated", image_size=32, total_batch=8, micro_batch=4, workers=0),
    augment=dataclasses.replace(AugmentConfig(), rand_augment=""),
    schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
    ema=EmaConfig(decay=0.9),
    save_every=2 / 3,  # every two of the three steps of an epoch
    accelerator="cpu",
)
LOSSES_PER_STEP = 2  # micro-batches
PLAIN = ClassifyRecipe(  # all else is the default
    model="fastvit_debug",
    data=ClassifyData(source="generated", image_size=32, total_batch=8, workers=0),
    accelerator="cpu",
)
DIGITS = tuple("0123456789")  # the classes of generated images
SHORT = dataclasses.replace(TINY, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))


class Interruption(Exception):
    """Stands for anything that ends a run without a word."""


class WatchedTask(Classify):
    """Classification of the recipe's images; `disturb` is called before each loss and after each validation.

    Subclasses change `loss`, which is given the objective.
    """

    def __init__(self, disturb: Callable[[str, int], None] = lambda *_: None) -> None:
        self.calls = {"loss": 0, "validate": 0}
        self.disturb = disturb

    def __reduce__(self) -> tuple[type[Classify], tuple[()]]:
        """As the task that it is for loader processes, which only collate: what watches and disturbs stays here."""
        return Classify, ()

    def objective(self, recipe: ClassifyRecipe, card: ModelCard, place: Place) -> Objective:
        return _Disturbed(super().objective(recipe, card, place), self)

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        self.count("loss")
        return learn.loss(model, batch, moment)

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        return _Counted(super().metric(card, num_examples=num_examples), self)

    def count(self, what: str) -> None:
        self.disturb(what, self.calls[what])
        self.calls[what] += 1


class TinyTask(WatchedTask):
    """Three steps an epoch, two images left over."""

    length = 26
    num_classes = 10

    def open(self, recipe: ClassifyRecipe) -> Splits:
        side = recipe.data.image_size
        training = GeneratedImages(
            length=self.length,
            image_size=(side, side),
            num_classes=self.num_classes,
            sizes=recipe.data.train_sizes,
            training=True,
        )
        validation = GeneratedImages(
            length=max(10, recipe.data.total_batch), image_size=(side, side), num_classes=self.num_classes, seed=1
        )
        return dataclasses.replace(super().open(recipe), train=training, validation=validation)


class _Disturbed(Objective):
    def __init__(self, objective: Objective, task: WatchedTask) -> None:
        self._objective, self._task = objective, task

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._objective.identity

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        return self._task.loss(self._objective, model, batch, moment)


class _Counted(Metric):
    def __init__(self, metric: Metric, task: WatchedTask) -> None:
        self._metric, self._task = metric, task

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._metric.update(outputs, batch)

    def compute(self) -> Scores:
        scores = self._metric.compute()
        self._task.count("validate")
        return scores


def run(
    recipe: ClassifyRecipe, *, disturb: Callable[[str, int], None] = lambda *_: None, resume: bool = False
) -> dict[str, Any]:
    """Train, and give back all that was saved at the end."""
    result = train(recipe, resume=resume, progress=False, task=TinyTask(disturb))
    newest = newest_snapshot(result.folder / "checkpoints")
    assert newest is not None
    return read_snapshot(newest)


def assert_same_bits(left: Any, right: Any, name: str = "state") -> None:
    if isinstance(left, Tensor):
        assert left.equal(right), name
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), name
        for key in left.keys() - {"images_per_second", "seconds"}:
            assert_same_bits(left[key], right[key], f"{name}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), name
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same_bits(one, other, f"{name}/{index}")
    else:
        assert left == right, name


def short(folder: Path, **changes: Any) -> ClassifyRecipe:
    """SHORT with these keys, into a folder."""
    return dataclasses.replace(SHORT, output=str(folder), **changes)


def go(recipe: ClassifyRecipe, **options: Any) -> RunResult:
    """Train, and give back the result."""
    return train(recipe, progress=False, task=TinyTask(), **options)
