"""A class for each pixel."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.quantity import Quantity
from hybridvit.task import Metric, Objective, Outputs, Place, Splits, Task
from hybridvit.tasks.segment.config import SegmentData, SegmentRecipe, SemanticFPNConfig, UPerNetConfig
from hybridvit.tasks.segment.result import ANSWER, SegmentResult, joined, results_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hybridvit.data.check_contents import Contents
    from hybridvit.data.encoded import OnBadImage
    from hybridvit.data.samples import Samples
    from hybridvit.data.tiles import TilePart

SIDE_PX = 512  # of the part of a picture that is trained on
LONGEST = 4  # times that: the most of the longer side of a picture that is shown whole


class Segment(Task):
    """One of the classes for each pixel of a picture."""

    name = "segment"
    pipeline_tag = "image-segmentation"
    quantities = (
        Quantity(name="miou", title="mean IoU", note="of the classes, over the pixels of all pictures"),
        Quantity(name="macc", title="mean accuracy", note="of the classes"),
        Quantity(name="aacc", title="pixel accuracy"),
    )
    recipe = SegmentRecipe
    answers = (ANSWER,)
    returns = "segmentation"
    argmax = "labels"
    heads: ClassVar[Mapping[str, type]] = {"semantic_fpn": SemanticFPNConfig, "upernet": UPerNetConfig}
    ways = ("multi_scale", "slide")
    joins_tiles = True
    num_classes = 150

    def prepared(self, preprocessing: Preprocessing, image_size: tuple[int, int] | None) -> Preprocessing:
        """Pictures are shown whole, as large as fits image_size and four times that."""
        size = image_size or (SIDE_PX, SIDE_PX)
        return dataclasses.replace(
            preprocessing,
            image_size=size,
            crop_mode="fit",
            crop_fraction=1.0,
            fit_px=(min(size), LONGEST * min(size)),
            interpolation="bilinear",
        )

    def open(self, recipe: SegmentRecipe) -> Splits:
        from hybridvit.tasks.segment.data import open_splits

        return open_splits(recipe)

    def labelled(
        self,
        root: str,
        card: ModelCard,
        *,
        on_bad_image: "OnBadImage" = "error",
        image_column: str = "",
        label_column: str = "",
    ) -> "Samples":
        from hybridvit.tasks.segment.folders import open_labelled

        return open_labelled(
            root, card, on_bad_image=on_bad_image, image_column=image_column, label_column=label_column
        )

    def contents(self, root: str, data: SegmentData | None = None) -> "Contents | None":
        from hybridvit.tasks.segment.folders import contents_of

        return contents_of(root, data)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        from hybridvit.tasks.segment.data import collated

        return collated(samples)

    def example(self, recipe: SegmentRecipe, num_images: int) -> Batch:
        import torch

        side = max([recipe.data.image_size, *recipe.data.train_sizes])
        labels = torch.zeros(num_images, side, side, dtype=torch.long)
        return Batch(torch.rand(num_images, 3, side, side), labels, torch.arange(num_images))

    def start(self, recipe: SegmentRecipe, splits: Splits) -> "nn.Module":
        from hybridvit.starting import started_with_head
        from hybridvit.tasks.segment.data import MaskedSamples

        assert isinstance(splits.train, MaskedSamples)
        return started_with_head(
            recipe, splits, num_classes=len(splits.train.class_names), facts=dict(splits.train.class_facts)
        )

    def build(self, card: ModelCard) -> "nn.Module":
        from hybridvit.build import head_config, with_head
        from hybridvit.tasks.segment.model import HEADS

        config = head_config(card)
        return with_head(card, lambda channels: HEADS[card.head](config, channels, card.options["num_classes"]))

    def objective(self, recipe: SegmentRecipe, card: ModelCard, place: Place) -> Objective:
        from hybridvit.tasks.segment.objective import SegmentObjective

        return SegmentObjective(recipe)

    def forward(self, model: "nn.Module", inputs: "Tensor") -> "dict[str, Tensor]":
        return {ANSWER: model(inputs).float()}

    def in_way(self, answer: "Callable[[Batch], Outputs]", way: str, card: ModelCard) -> "Callable[[Batch], Outputs]":
        from hybridvit.tasks.segment.ways import WAYS

        return WAYS[way](answer, card) if way in WAYS else super().in_way(answer, way, card)

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        from hybridvit.tasks.segment.metric import SegmentMetric

        return SegmentMetric(card, num_examples=num_examples)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> Sequence[SegmentResult]:
        return results_of(outputs, frames, card, most)

    def joined(self, parts: "Iterable[TilePart]", picture_size: tuple[int, int], card: ModelCard) -> Outputs:
        return joined(parts, picture_size)
