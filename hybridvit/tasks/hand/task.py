"""Hands: the mesh of a hand in space, from one picture of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import UsageError
from hybridvit.task import Metric, Objective, Outputs, Place, Splits, Task, TaskOptions
from hybridvit.tasks.hand.asking import HandAsking, shown
from hybridvit.tasks.hand.config import HandData, HandMeshConfig, HandRecipe
from hybridvit.tasks.hand.quantities import QUANTITIES

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor, nn

    from hybridvit.data.check_contents import Contents
    from hybridvit.data.encoded import OnBadImage
    from hybridvit.data.samples import Samples
    from hybridvit.tasks.hand.predictions import HandPredictions
    from hybridvit.tasks.hand.result import HandResult

SIDE_PX = 224


class HandTask(Task):
    """The mesh of a right hand, its keypoints, and what moved it."""

    name = "hand"
    pipeline_tag = "keypoint-detection"
    quantities = QUANTITIES
    recipe = HandRecipe
    answers = ("vertices", "keypoints", "camera", "rotations", "shape")
    returns = "hand"
    also_returns: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"parameters": answers[2:]})
    heads: ClassVar[Mapping[str, type]] = {"hand_mesh": HandMeshConfig}
    num_classes = 1
    tolerance = 0.1  # a target's limit is a share; of a hand it is metres
    counted_in = "m"
    asking = HandAsking
    has_files_of_several = True

    def __init__(self, said: HandAsking = HandAsking()) -> None:  # noqa: B008  a frozen value
        self._said = said

    def asked(self, options: TaskOptions) -> "HandTask":
        super().asked(options)
        return HandTask(HandAsking(**options))

    def shown(self, picture: "Image", preprocessing: Preprocessing, name: str) -> "tuple[np.ndarray, Frame]":
        return shown(picture, preprocessing, self._said, name)

    def prepared(self, preprocessing: Preprocessing, image_size: tuple[int, int] | None) -> Preprocessing:
        """The central square of a picture, all of it: hands fill about half of its side."""
        return replace(
            preprocessing,
            image_size=image_size or (SIDE_PX, SIDE_PX),
            crop_mode="center",
            crop_fraction=1.0,
            interpolation="bilinear",
        )

    def open(self, recipe: HandRecipe) -> Splits:
        from hybridvit.tasks.hand.start import open_recipe

        return open_recipe(recipe)

    def labelled(
        self,
        root: str,
        card: ModelCard,
        *,
        on_bad_image: "OnBadImage" = "error",
        image_column: str = "",
        label_column: str = "",
    ) -> "Samples":
        from hybridvit.tasks.hand.data import open_labelled
        from hybridvit.tasks.hand.mano.hand_found import named

        if image_column or label_column:
            raise UsageError(
                "image_column and label_column are for tables of labels. Hands have lists in JSON, as FreiHAND's. "
                "Leave them out."
            )
        return open_labelled(root, card, assets=named(card), on_bad_image=on_bad_image)

    def contents(self, root: str, data: HandData | None = None) -> "Contents | None":
        from hybridvit.tasks.hand.data import contents

        return contents(root, data)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        from hybridvit.data.loader import stacked

        return stacked(samples)

    def example(self, recipe: HandRecipe, num_images: int) -> Batch:
        from hybridvit.tasks.hand.generated import example

        return example(recipe.data, num_images)

    def start(self, recipe: HandRecipe, splits: Splits) -> "nn.Module":
        from hybridvit.tasks.hand.start import started

        return started(recipe, splits)

    def build(self, card: ModelCard) -> "nn.Module":
        from hybridvit.tasks.hand.start import built

        return built(card)

    def objective(self, recipe: HandRecipe, card: ModelCard, place: Place) -> Objective:
        from hybridvit.tasks.hand.objective import HandObjective

        return HandObjective(recipe.loss)

    def forward(self, model: "nn.Module", inputs: "Tensor") -> "dict[str, Tensor]":
        return {name: each.float() for name, each in zip(self.answers, model(inputs), strict=True)}

    def notice(self, card: ModelCard, answers: tuple[str, ...]) -> str:
        from hybridvit.tasks.hand.mano.hand_found import hand_of

        assets = hand_of(card)
        if not {"vertices", "keypoints"} & set(answers):
            return ""
        if assets.kind == "generated":
            return f"The mesh of a generated hand is inside ({assets.licence})."
        return (
            "MANO's arrays are inside, which may be used for research alone and not be passed on. A file made with "
            "--returns parameters has none of them."
        )

    def needs(self, card: ModelCard) -> str:
        from hybridvit.tasks.hand.mano.assets import GENERATED
        from hybridvit.tasks.hand.mano.hand_found import named

        if named(card) == GENERATED:
            return ""
        return (
            "It answers with MANO's hand, whose file may not be passed on and is not here: take it from "
            "https://mano.is.tue.mpg.de, accept its licence, and run `hybridvit mano convert MANO_RIGHT.pkl` once."
        )

    def difference(self, given: Outputs, wanted: Outputs) -> float:
        from hybridvit.tasks.hand.difference import farthest_m

        return farthest_m(given, wanted)

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        from hybridvit.tasks.hand.baseline import mean_points
        from hybridvit.tasks.hand.mano.hand_found import hand_of
        from hybridvit.tasks.hand.metric import HandMetric

        assets = hand_of(card)
        return HandMetric(card, num_examples=num_examples, assets=assets, mean=mean_points(card, assets))

    def predictions(self, samples: "Samples", card: ModelCard, path: Path) -> "HandPredictions":
        from hybridvit.tasks.hand.predictions import HandPredictions

        return HandPredictions(samples, path)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> "Sequence[HandResult]":
        from hybridvit.tasks.hand.mano.hand_found import hand_of
        from hybridvit.tasks.hand.result import results_of

        found = results_of(outputs, frames, card, hand_of(card), self._said.side)
        return [replace(each, focal_px=self._said.focal) for each in found]

    def files_of_video(self, results: "Sequence[HandResult]", seconds: Sequence[float]) -> Mapping[str, bytes]:
        from hybridvit.tasks.hand.together import of_video

        return of_video(results, seconds)

    def files_of_pictures(self, names: Sequence[str], results: "Sequence[HandResult]") -> Mapping[str, bytes]:
        from hybridvit.tasks.hand.together import of_pictures

        return of_pictures(names, results)
