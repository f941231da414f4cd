"""Pictures made up from a seed, for dry runs and tests: no files, and something to find all the same."""

from typing import Any

import numpy as np
import torch

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import Preprocessing
from hybridvit.data.seeding import generator, side_of_step
from hybridvit.tasks.detect.config import DetectData, DetectRecipe
from hybridvit.tasks.detect.data import DetectionSamples, DrawnAs, Truth, batched
from hybridvit.tasks.detect.data_lists import Category
from hybridvit.tasks.detect.data_masks import encode
from hybridvit.tasks.detect.data_transforms import TrainGeometry

EMPTY = 8  # one picture in so many shows nothing


class GeneratedObjects(DetectionSamples):
    """`length` square pictures of noise with up to three rectangles, each brighter in the channel of its class."""

    categories = (Category(1, "red"), Category(2, "green"), Category(4, "blue"))
    class_names = tuple(category.name for category in categories)
    has_masks = True

    def __init__(self, *, length: int, drawn: DrawnAs, seed: int) -> None:
        self.paths = tuple(f"generated/{index}" for index in range(length))
        self.training = drawn.geometry is not None
        self._side, self._sizes, self._seed = drawn.preprocessing.image_size[0], drawn.sizes, seed
        self.fingerprint = f"generated-objects-{length}-{self._side}-{seed}"

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """The rectangles and the noise are the sample's; a training set has new ones in every epoch."""
        side = side_of_step(self._sizes, self._seed, step) or self._side
        dice = generator("objects", self._seed, epoch if self.training else 0, index)
        image = 0.5 * torch.randn(3, side, side, generator=dice)
        count = 0 if index % EMPTY == EMPTY - 1 else int(torch.randint(1, 4, (), generator=dice))
        labels = torch.randint(3, (count,), generator=dice)
        low = (torch.rand(count, 2, generator=dice) * side * 0.6).floor()
        high = low + (torch.rand(count, 2, generator=dice) * side * 0.3 + side * 0.1).ceil()
        boxes = torch.cat((low, high.clamp(max=side)), dim=1)
        masks = torch.zeros(count, side, side, dtype=torch.uint8)
        for mask, label, (left, top, right, bottom) in zip(masks, labels, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
            image[label, top:bottom, left:right] += 2
        target: dict[str, Any] = {
            "boxes": boxes,
            "labels": labels,
            "masks": masks,
            "ignored": torch.empty(0, 4),
            "size": torch.tensor((side, side)),
        }
        if self.training:
            return Sample(image, target, index)
        truth = Truth(
            size=(side, side),
            boxes=boxes.double().numpy(),
            labels=labels.numpy().copy(),  # a tensor that is sent to another process moves its memory
            crowd=np.zeros(count, bool),
            areas=masks.sum((1, 2)).double().numpy(),
            masks=tuple(encode(mask.numpy()) for mask in masks),
        )
        frame = Frame.whole(side, side)
        return Sample(image, target | {"truth": truth}, index, frame)


def open_generated(data: DetectData, train: DrawnAs, validation: DrawnAs) -> tuple[GeneratedObjects, GeneratedObjects]:
    """Two epochs' worth of steps to train on, and half as many pictures to validate on."""
    return (
        GeneratedObjects(length=max(10, 2 * data.total_batch), drawn=train, seed=train.seed if data.train_sizes else 0),
        GeneratedObjects(length=max(10, data.total_batch), drawn=validation, seed=1),
    )


def example(recipe: DetectRecipe, num_images: int) -> Batch:
    """Pictures of the largest size of a recipe, each with a few objects."""
    data = recipe.data
    side = max([data.image_size, *data.train_sizes])
    geometry = TrainGeometry(augment=recipe.augment, max_size=data.max_size)
    drawn = DrawnAs(preprocessing=Preprocessing(image_size=(side, side)), geometry=geometry)
    made = GeneratedObjects(length=num_images, drawn=drawn, seed=0)
    return batched([made.draw(0, number) for number in range(num_images)])
