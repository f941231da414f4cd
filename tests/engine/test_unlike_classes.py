"""Classes of unlike size: drawn equally often, or weighed in the loss."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_runs import TINY
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.order import TrainOrder, balanced_permutation
from hybridvit.errors import UsageError
from hybridvit.task import Moment, Place
from hybridvit.tasks.classify.config import ClassifyData
from hybridvit.tasks.classify.objective import class_weights
from hybridvit.tasks.classify.task import Classify

LABELS = (0,) * 70 + (1,) * 25 + (2,) * 5


def test_a_balanced_epoch_shows_each_class_equally_often_and_no_image_again_before_all_of_its_class() -> None:
    drawn = balanced_permutation(LABELS, seed=3, epoch=2).tolist()
    assert sorted(Counter(LABELS[index] for index in drawn).values()) == [33, 33, 34]
    times = Counter(drawn)
    assert max(times[index] for index in range(70)) == 1
    assert {times[index] for index in range(70, 95)} == {1, 2}
    assert {times[index] for index in range(95, 100)} == {6, 7}
    assert drawn == balanced_permutation(LABELS, seed=3, epoch=2).tolist()
    assert set(drawn) != set(balanced_permutation(LABELS, seed=3, epoch=3).tolist())


def test_a_balanced_step_has_the_same_images_on_any_number_of_processes() -> None:
    def step(rank: int, world_size: int) -> list[int]:
        order = TrainOrder(
            100, batch_size=8 // world_size, num_steps=3, rank=rank, world_size=world_size, balanced_labels=LABELS
        )
        return [key.number for keys in order for key in keys]

    assert sorted(step(0, 1)) == sorted(step(0, 2) + step(1, 2))


def place(micro_batch: int = 4, samples: GeneratedImages | None = None) -> Place:
    return Place(
        device=torch.device("cpu"),
        layout=torch.contiguous_format,
        micro_batch=micro_batch,
        autocast=torch.no_grad,
        samples=samples,
    )


CARD = dataclasses.replace(hybridvit.create_model("fastvit_debug", num_classes=3).card, class_names=("a", "b", "c"))


def unlike() -> GeneratedImages:
    images = GeneratedImages(length=100, num_classes=3)
    images.labels = LABELS
    return images


def test_balanced_weights_are_one_in_the_mean_over_the_images() -> None:
    weights = class_weights(dataclasses.replace(TINY, class_weights="balanced"), CARD, unlike())
    assert weights is not None
    assert weights.tolist() == pytest.approx([100 / 210, 100 / 75, 100 / 15])
    assert weights[torch.tensor(LABELS)].mean() == pytest.approx(1.0)
    assert class_weights(TINY, CARD, unlike()) is None


class Says(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_the_loss_of_an_image_is_weighed_by_its_class(mixup: float) -> None:
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    moment = Moment(step=0, total_steps=1, averaged=None)

    def loss(weights: object) -> Tensor:
        augment = dataclasses.replace(TINY.augment, mixup=mixup, cutmix=0.0, label_smoothing=0.1)
        recipe = dataclasses.replace(TINY, class_weights=weights, augment=augment)
        batch = Batch(torch.zeros(4, 3, 32, 32), targets, torch.arange(4))
        objective = Classify().objective(recipe, CARD, place(samples=unlike()))
        torch.manual_seed(0)
        np.random.seed(0)
        return objective.loss(Says(logits), batch, moment)

    torch.testing.assert_close(loss((1.0, 1.0, 1.0)), loss("none"))
    torch.testing.assert_close(loss((2.0, 2.0, 2.0)), 2 * loss("none"))
    parts = [loss(tuple(float(chosen == label) for chosen in range(3))) for label in range(3)]
    torch.testing.assert_close(sum(parts), loss("none"))
    assert all(part > 0 for part in parts)


def test_weights_and_samplers_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match=r"has 2 numbers, but there are 3 classes \('a', 'b', 'c'\)"):
        class_weights(dataclasses.replace(TINY, class_weights=(1.0, 2.0)), CARD, None)
    with pytest.raises(UsageError, match=r"'class_weights' is -1.0, but it must be at least 0.0"):
        dataclasses.replace(TINY, class_weights=(-1.0,))
    with pytest.raises(UsageError, match="shards are read one after the other"):
        ClassifyData(source="shards", root="x", sampler="balanced")
