"""The search for the layers that int8 is to leave out, in the quantity of whatever task the model has."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image

import hybridvit
from hybridvit.errors import ExportError
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.original import Original
from hybridvit.export.quantise import Quality, plan_from_folder
from hybridvit.export.quantise.quality import drop_interval
from hybridvit.export.quantise.search import quantise
from hybridvit.export.spec import GraphSpec
from hybridvit.models.backbone import Backbone
from hybridvit.scores import Scores
from hybridvit.task import TASKS, find_task

SIDE = 32
NUM_IMAGES = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that are named by a number of millimetres."""
    dice = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        pixels = dice.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number / 4:.2f}-{number}.png")
    return tmp_path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backbone]:
    monkeypatch.setitem(TASKS, "number", "number_task:Number")
    torch.set_num_threads(1)
    made = trained_like(hybridvit.create_model("fastvit_debug", num_classes=1))
    made.card = dataclasses.replace(made.card, task="number")
    return made


class Stubborn:
    """A runtime whose numbers are 3 mm too large, unless so many layers or more are kept."""

    def __init__(self, original: Original, needed: int) -> None:
        self.original, self.needed, self.kept = original, needed, 0

    def __call__(self, quantisation: Quantisation) -> "Stubborn":
        self.kept = len(quantisation.kept)
        return self

    def answer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {"millimetres": self.original(images)[0] + (3.0 if self.kept < self.needed else 0.001)}


def searched(model: Backbone, folder: Path, needed: int, max_drop: float | None) -> Quality:
    spec = GraphSpec(image_size=(SIDE, SIDE), precision="int8", answers=find_task("number").answers)
    original = Original(Shifted(model), spec)
    runtime = Stubborn(original, needed)
    plan = plan_from_folder(folder, model.card, num_calibration=8, max_drop=max_drop)
    deployed = DeployedModel(hybridvit.fold(model), spec)
    return quantise(deployed, original, model.card, plan, lambda given: runtime(given).answer)


class Shifted(torch.nn.Module):
    """A model whose numbers are all too large, so that larger ones are worse on every picture."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model, self.card = model, model.card

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images) + 1000


def test_what_integers_cost_is_told_in_the_quantity_of_the_task(model: Backbone, folder: Path) -> None:
    quality = searched(model, folder, needed=3, max_drop=None)
    assert quality.quantity == find_task("number").headline
    assert quality.after - quality.before == pytest.approx(3, abs=1e-3)
    assert quality.drop == pytest.approx(3, abs=1e-3)  # lower is better: more is a loss
    assert quality.everything == quality.after
    assert quality.drop_interval == pytest.approx((3, 3), abs=1e-2)
    assert (quality.num_calibration, quality.num_images, quality.same_answer) == (8, NUM_IMAGES - 8, 0)
    values = quality.to_dict()
    assert (values["error_fp32"], values["error"]) == (quality.before, quality.after)
    assert "quantity" not in values


def test_layers_are_kept_until_the_budget_in_its_unit_is_met(model: Backbone, folder: Path) -> None:
    quality = searched(model, folder, needed=3, max_drop=0.5)
    assert len(quality.kept) == 3
    assert quality.everything - quality.before == pytest.approx(3, abs=1e-3)
    assert quality.drop == pytest.approx(0.001, abs=1e-3)
    assert quality.same_answer == 100


def test_a_budget_that_cannot_be_met_is_named_in_its_unit(model: Backbone, folder: Path) -> None:
    text = r"cost 0\.5 mm of mean error at most, but the least that was reached is 3\.000 \(from \d+\.\d{3} mm on 32 im"
    with pytest.raises(ExportError, match=text):
        searched(model, folder, needed=10_000, max_drop=0.5)


def test_the_choice_of_images_needs_no_classes_and_is_the_same_each_time(model: Backbone, folder: Path) -> None:
    plan = plan_from_folder(folder, model.card, num_calibration=8)
    assert plan == plan_from_folder(folder, model.card, num_calibration=8)
    assert len({*plan.calibration.paths, *plan.labelled.paths}) == NUM_IMAGES
    samples = plan.calibration.opened(model.card)
    numbers = [float(re.match(r"[\d.]+", Path(path).name)[0]) for path in plan.calibration.paths]
    assert [samples[place][1] for place in range(len(samples))] == numbers


def test_an_interval_needs_a_mean_over_images() -> None:
    quantity, per_image = find_task("classify").headline, np.array([1.0, 2.0, 4.0])
    alone, each = Scores(values={"top1": 1.0}), Scores(values={"top1": 1.0}, per_image=per_image)
    assert drop_interval(quantity, alone, each) is None
    low, high = drop_interval(quantity, each, Scores(values={"top1": 1.0}, per_image=per_image - [0.0, 1.0, 2.0]))
    assert (low + high) / 2 == pytest.approx(1)
    assert high - low == pytest.approx(2 * 1.96 / 3**0.5)


@pytest.mark.parametrize(
    ("size", "only_whole", "lengths"), [(4, True, [4, 4, 4]), (4, False, [4, 4, 2]), (16, True, [16])]
)
def test_every_image_calibrates_whatever_the_batch(size: int, only_whole: bool, lengths: list[int]) -> None:
    images = torch.arange(10.0).view(-1, 1, 1, 1)
    batches = Quantisation(images).batches(size, only_whole=only_whole)
    assert [len(batch) for batch in batches] == lengths
    given = np.concatenate(batches).ravel()
    np.testing.assert_array_equal(given, np.arange(len(given)) % 10)
