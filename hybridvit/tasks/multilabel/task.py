"""Several labels per image, or none: each class is a question of its own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import ModelCard
from hybridvit.quantity import Quantity
from hybridvit.task import Metric, Objective, Outputs, Place, Splits, Task
from hybridvit.tasks.multilabel.config import MultilabelData, MultilabelRecipe
from hybridvit.tasks.multilabel.result import ANSWER, MultilabelResult, results_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hybridvit.data.encoded import OnBadImage
    from hybridvit.data.listing import Listing
    from hybridvit.data.samples import Samples


class Multilabel(Task):
    """Any number of the classes that a table names."""

    name = "multilabel"
    pipeline_tag = "image-classification"
    quantities = (
        Quantity(name="map", title="mean AP", note="average precision, over the classes that an image has"),
        Quantity(name="f1", title="micro F1", note="of scores above 50 %"),
        Quantity(name="loss", title="loss", unit="", higher_is_better=False, decimals=4, note="binary cross-entropy"),
    )
    recipe = MultilabelRecipe
    answers = (ANSWER,)

    def open(self, recipe: MultilabelRecipe) -> Splits:
        from hybridvit.tasks.multilabel.data import open_splits

        return open_splits(recipe)

    def listed(self, data: MultilabelData) -> "Mapping[str, Listing[Any]]":
        from hybridvit.tasks.multilabel.data import listed

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
        from hybridvit.tasks.multilabel.data import open_labelled

        return open_labelled(
            root, card, on_bad_image=on_bad_image, image_column=image_column, label_column=label_column
        )

    def collate(self, samples: Sequence[Sample]) -> Batch:
        from hybridvit.data.loader import stacked
        from hybridvit.tasks.multilabel.data import padded

        batch = stacked([sample._replace(target=0) for sample in samples])  # labels are not equally many
        return batch._replace(targets=padded([sample.target for sample in samples]))

    def example(self, recipe: MultilabelRecipe, num_images: int) -> Batch:
        import torch

        side = max([recipe.data.image_size, *recipe.data.train_sizes])
        labels = torch.zeros(num_images, 1, dtype=torch.long)
        return Batch(torch.rand(num_images, 3, side, side), labels, torch.arange(num_images))

    def start(self, recipe: MultilabelRecipe, splits: Splits) -> "nn.Module":
        from hybridvit.starting import started

        return started(recipe, splits)

    def build(self, card: ModelCard) -> "nn.Module":
        from hybridvit.build import build

        return build(card.architecture, **card.options)

    def objective(self, recipe: MultilabelRecipe, card: ModelCard, place: Place) -> Objective:
        from hybridvit.tasks.multilabel.objective import MultilabelObjective

        return MultilabelObjective(recipe, card, place)

    def forward(self, model: "nn.Module", inputs: "Tensor") -> "dict[str, Tensor]":
        return {ANSWER: model(inputs).float()}

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        from hybridvit.tasks.multilabel.metric import MultilabelMetric

        return MultilabelMetric(card, num_examples=num_examples)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> Sequence[MultilabelResult]:
        return results_of(outputs, card, most)
