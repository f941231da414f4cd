"""A task of one number per picture, to prove that all that knows tasks knows them by their interface alone.

How bright a picture is, in millimetres, so to say; lower errors are better, and the unit is not per cent.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.build import build
from hybridvit.card import ModelCard
from hybridvit.create import create_model
from hybridvit.data.encoded import EncodedSamples
from hybridvit.data.loader import stacked
from hybridvit.data.samples import Samples
from hybridvit.data.scan import find_images
from hybridvit.data.seeding import derive_seed
from hybridvit.data.tiles import TilePart
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import UsageError
from hybridvit.models.registry import find_variant
from hybridvit.quantity import Quantity
from hybridvit.recipe.recipe import Recipe
from hybridvit.report.content import Table
from hybridvit.scores import Columns, Example, Result, Scores
from hybridvit.task import Metric, Moment, Objective, Outputs, Place, Splits, Task

LARGEST = 10.0  # mm


class MadeUp(Samples):
    """Grey noise around a level that follows from the number."""

    def __init__(self, length: int, side: int, *, seed: int = 0, training: bool = False) -> None:
        self.paths = [f"made up/{index}" for index in range(length)]
        self.fingerprint = f"numbers-{length}-{side}-{seed}"
        self.training = training
        self._side, self._seed = side, seed

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, epoch if self.training else 0, index))
        number = LARGEST * torch.rand((), generator=generator).item()
        image = number / LARGEST - 0.5 + 0.1 * torch.randn(3, self._side, self._side, generator=generator)
        return Sample(image, number, index)


class Files(EncodedSamples):
    """Pictures whose names begin with their number: 2.50-seven.png."""

    def __init__(self, root: str, card: ModelCard, on_bad_image: Any) -> None:
        super().__init__(paths=[str(path) for path in find_images([root])], fingerprint=root, on_bad_image=on_bad_image)
        self._transform = EvalTransform(card.preprocessing)

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]

    def prepared(self, source: str | bytes, index: int, step: int) -> tuple[Tensor, float, Frame | None]:
        return self._transform.of_file(source), float(Path(self.paths[index]).name.partition("-")[0]), None


@dataclass(frozen=True, kw_only=True)
class NumberResult(Result):
    """The number of one picture."""

    millimetres: float

    def to_dict(self) -> dict[str, Any]:
        return {"millimetres": round(self.millimetres, 4)}

    @property
    def columns(self) -> Columns:
        return {"millimetres": float}

    def lines(self) -> list[str]:
        return [f"  {self.millimetres:.2f} mm"]

    def agrees(self, other: Result) -> bool:
        return isinstance(other, NumberResult) and abs(self.millimetres - other.millimetres) < 0.01

    def draw(self, picture: Image.Image) -> Image.Image:
        drawn = picture.convert("RGB")
        length = round(picture.width * min(max(self.millimetres / LARGEST, 0), 1))
        ImageDraw.Draw(drawn).line([(0, picture.height // 2), (length, picture.height // 2)], fill="red")
        return drawn

    def files(self) -> dict[str, bytes]:
        return {"number.txt": f"{self.millimetres:.4f}\n".encode()}


class NumberMetric(Metric):
    """The mean absolute error."""

    def __init__(self, num_examples: int) -> None:
        self._error = MeanAbsoluteError()
        self._errors: list[np.ndarray] = []
        self._examples: list[Example] = []
        self._num_examples = num_examples

    def update(self, outputs: Outputs, batch: Batch) -> None:
        given = torch.as_tensor(outputs["millimetres"]).cpu()[:, 0]
        self._error.update(given, batch.targets)
        self._errors.append((given - batch.targets).abs().numpy())
        rows = zip(given.tolist(), batch.targets.tolist(), batch.samples.tolist(), strict=True)
        self._examples += [
            Example(
                group="Furthest off",
                order=abs(said - true),
                sample=sample,
                result=NumberResult(millimetres=said),
                said=f"{said:.2f} mm",
                truth=f"is {true:.2f} mm",
                right=False,
            )
            for said, true, sample in rows
        ]
        self._examples = sorted(self._examples, key=lambda example: -example.order)[: self._num_examples]

    def compute(self) -> Scores:
        error = self._error.compute().item()
        table = Table(title="How far off", head=["Mean"], rows=[[f"{error:.3f}"]])
        return Scores(
            values={"error": error},
            parts=(table,),
            examples=tuple(self._examples),
            per_image=np.concatenate(self._errors),
        )


class NumberObjective(Objective):
    """The squared error."""

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        return F.mse_loss(model(batch.inputs).float()[:, 0], batch.targets)


class Number(Task):
    """One number per picture; that of a large one is the mean over its area."""

    joins_tiles = True

    name = "number"
    quantities = (Quantity(name="error", title="mean error", unit="mm", higher_is_better=False, decimals=3),)
    recipe = Recipe
    answers = ("millimetres",)

    def open(self, recipe: Recipe) -> Splits:
        side = recipe.data.image_size
        preprocessing = dataclasses.replace(find_variant(recipe.model).preprocessing, image_size=(side, side))
        training = MadeUp(max(26, 2 * recipe.data.total_batch), side, training=True)
        return Splits(train=training, validation=MadeUp(10, side, seed=1), preprocessing=preprocessing)

    def labelled(
        self, root: str, card: ModelCard, *, on_bad_image: Any = "error", image_column: str = "", label_column: str = ""
    ) -> Samples:
        if image_column or label_column:
            raise UsageError("image_column and label_column are for a table, and numbers are in none. Leave them out.")
        return Files(root, card, on_bad_image)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        batch = stacked(samples)
        return batch._replace(targets=batch.targets.float())

    def example(self, recipe: Recipe, num_images: int) -> Batch:
        side = recipe.data.image_size
        return Batch(torch.rand(num_images, 3, side, side), torch.rand(num_images), torch.arange(num_images))

    def start(self, recipe: Recipe, splits: Splits) -> nn.Module:
        options: dict[str, Any] = {**recipe.model_options, "num_classes": 1}
        model: Any = create_model(recipe.model, **options)
        model.card = dataclasses.replace(model.card, task=self.name, preprocessing=splits.preprocessing)
        return model

    def build(self, card: ModelCard) -> nn.Module:
        return build(card.architecture, **card.options)

    def objective(self, recipe: Recipe, card: ModelCard, place: Place) -> Objective:
        return NumberObjective()

    def forward(self, model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        return {"millimetres": model(inputs).float()}

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        return NumberMetric(num_examples)

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> Sequence[NumberResult]:
        return [NumberResult(millimetres=float(value)) for value in outputs["millimetres"][:, 0]]

    def joined(self, parts: Iterable[TilePart], picture_size: tuple[int, int], card: ModelCard) -> Outputs:
        total = 0.0
        for part in parts:
            left, top, right, bottom = part.tile.core
            total += (right - left) * (bottom - top) * float(part.outputs["millimetres"][0, 0])
        return {"millimetres": np.array([[total / (picture_size[0] * picture_size[1])]], np.float32)}
