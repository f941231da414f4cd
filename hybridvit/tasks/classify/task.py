"""Classification: one label per image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import ModelCard
from hybridvit.quantity import Quantity
from hybridvit.task import Metric, Objective, Outputs, Place, Splits, Task
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe
from hybridvit.tasks.classify.result import ClassifyResult, results_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hybridvit.data.encoded import OnBadImage
    from hybridvit.data.listing import Listing
    from hybridvit.data.samples import Samples


@dataclass(frozen=True)
class Classify(Task):
    """One of the classes that the training folders name."""

    tries: bool = False  # with an untrained teacher

    name = "classify"
    pipeline_tag = "image-classification"
    quantities = (
        Quantity(name="top1", title="top-1"),
        Quantity(name="top5", title="top-5"),
        Quantity(name="loss", title="loss", unit="", higher_is_better=False, decimals=4, note="cross-entropy"),
    )
    recipe = ClassifyRecipe
    answers = ("logits",)

    def tried(self) -> "Classify":
        return Classify(tries=True)

    def companions(self, recipe: ClassifyRecipe, num_classes: int) -> "Sequence[nn.Module]":
        from hybridvit.tasks.classify.teacher import teacher_architecture

        return [teacher_architecture(recipe.distill.teacher, num_classes)] if recipe.distill.teacher else []

    def open(self, recipe: ClassifyRecipe) -> Splits:
        from hybridvit.tasks.classify.data import open_splits

        return open_splits(recipe)

    def listed(self, data: ClassifyData) -> "Mapping[str, Listing[Any]]":
        from hybridvit.tasks.classify.data import listed

        return listed(data)

    def labelled(
        self,
        root: str,
        card: ModelCard,
        *,
        on_bad_image: "OnBadImage" = "error",
        image_column: str = "",
        label_column: str = "",
    ) -> "Samples":
        from hybridvit.tasks.classify.data import open_labelled

        return open_labelled(
            root, card, on_bad_image=on_bad_image, image_column=image_column, label_column=label_column
        )

    def collate(self, samples: Sequence[Sample]) -> Batch:
        from hybridvit.data.loader import stacked

        return stacked(samples)

    def example(self, recipe: ClassifyRecipe, num_images: int) -> Batch:
        import torch

        side = max([recipe.data.image_size, *recipe.data.train_sizes])
        labels = torch.zeros(num_images, dtype=torch.long)
        return Batch(torch.rand(num_images, 3, side, side), labels, torch.arange(num_images))

    def start(self, recipe: ClassifyRecipe, splits: Splits) -> "nn.Module":
        from hybridvit.starting import started

        return started(recipe, splits)

    def build(self, card: ModelCard) -> "nn.Module":
        from hybridvit.build import build

        return build(card.architecture, **card.options)

    def objective(self, recipe: ClassifyRecipe, card: ModelCard, place: Place) -> Objective:
        from hybridvit.tasks.classify.objective import ClassifyObjective
        from hybridvit.tasks.classify.teacher import find_teacher, untrained_teacher

        find = untrained_teacher if self.tries else find_teacher
        return ClassifyObjective(recipe, card, place, find_teacher=find)

    def forward(self, model: "nn.Module", inputs: "Tensor") -> "dict[str, Tensor]":
        return {"logits": model(inputs).float()}

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        from hybridvit.tasks.classify.metric import ClassifyMetric

        return ClassifyMetric(card, num_examples=num_examples)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> Sequence[ClassifyResult]:
        return results_of(outputs, card, most)
