"""Detection: boxes around things, their classes and, where they are annotated, their masks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import UsageError
from hybridvit.quantity import Quantity
from hybridvit.task import Metric, Objective, Outputs, Place, Splits, Task
from hybridvit.tasks.detect.config import DetectData, DetectRecipe
from hybridvit.tasks.detect.heads import HEADS, WITH_MASKS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hybridvit.data.check_contents import Contents
    from hybridvit.data.encoded import OnBadImage
    from hybridvit.data.samples import Samples
    from hybridvit.data.tiles import TilePart
    from hybridvit.tasks.detect.result import DetectResult

SHORTER_PX, LONGER_PX = 800, 1333  # the most of a picture's sides, unless a recipe or a user says otherwise


class Detect(Task):
    """Where things are in a picture, and what they are."""

    name = "detect"
    pipeline_tag = "object-detection"
    quantities = (
        Quantity(name="box_ap", title="box AP", note="COCO's: the mean over classes and IoU of 0.50 to 0.95"),
        Quantity(name="mask_ap", title="mask AP", note="the same of masks"),
        Quantity(name="box_ap50", title="box AP50", note="at an IoU of 0.50"),
        Quantity(name="mask_ap50", title="mask AP50"),
    )
    recipe = DetectRecipe
    answers = ("boxes", "scores", "labels")
    returns = "detections"
    lists_objects = True
    tolerance = 10  # scores are probabilities, which were through many more layers than the largest logit
    counted_in = "of a score or a mask's probability"
    heads: ClassVar[Mapping[str, type]] = HEADS
    joins_tiles = True
    num_classes = 80  # COCO's

    def prepared(self, preprocessing: Preprocessing, image_size: tuple[int, int] | None) -> Preprocessing:
        """Whole pictures, as large as the two sides allow."""
        size = image_size or (SHORTER_PX, LONGER_PX)
        return replace(
            preprocessing, image_size=size, crop_mode="fit", fit_px=(min(size), max(size)), interpolation="bilinear"
        )

    def open(self, recipe: DetectRecipe) -> Splits:
        from hybridvit.tasks.detect.data import open_splits

        return open_splits(recipe)

    def contents(self, root: str, data: DetectData | None = None) -> "Contents | None":
        from hybridvit.tasks.detect.data import contents

        return contents(root, data)

    def labelled(
        self,
        root: str,
        card: ModelCard,
        *,
        on_bad_image: "OnBadImage" = "error",
        image_column: str = "",
        label_column: str = "",
    ) -> "Samples":
        from hybridvit.tasks.detect.data import open_labelled

        if image_column or label_column:
            raise UsageError(
                "image_column and label_column are for tables of labels. Boxes have columns file, x1, y1, x2, y2 and "
                "label. Leave them out."
            )
        return open_labelled(root, card, on_bad_image=on_bad_image)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        from hybridvit.tasks.detect.data import batched

        return batched(samples)

    def example(self, recipe: DetectRecipe, num_images: int) -> Batch:
        from hybridvit.tasks.detect.generated import example

        return example(recipe, num_images)

    def start(self, recipe: DetectRecipe, splits: Splits) -> "nn.Module":
        from hybridvit.tasks.detect.start import started

        return started(recipe, splits)

    def build(self, card: ModelCard) -> "nn.Module":
        from hybridvit.tasks.detect.start import built

        return built(card)

    def objective(self, recipe: DetectRecipe, card: ModelCard, place: Place) -> Objective:
        from hybridvit.tasks.detect.objective import DetectObjective

        return DetectObjective(place.samples)

    def forward(self, model: "nn.Module", inputs: "Tensor") -> "dict[str, Tensor]":
        return {name: each.float() if each.is_floating_point() else each for name, each in model(inputs).items()}

    def answers_of(self, card: ModelCard) -> tuple[str, ...]:
        return (*self.answers, "masks") if card.head in WITH_MASKS else self.answers

    def difference(self, given: Outputs, wanted: Outputs) -> float:
        from hybridvit.tasks.detect.difference import difference

        return difference(given, wanted)

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        from hybridvit.tasks.detect.metric import DetectMetric

        return DetectMetric(card, num_examples=num_examples)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> "Sequence[DetectResult]":
        from hybridvit.tasks.detect.categories import categories_of
        from hybridvit.tasks.detect.result import results_of

        return results_of(outputs, frames, card, categories_of(card), most)

    def joined(self, parts: "Iterable[TilePart]", picture_size: tuple[int, int], card: ModelCard) -> Outputs:
        from hybridvit.tasks.detect.tiles import joined

        return joined(parts, picture_size)
