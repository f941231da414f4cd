"""An evaluation counts each image once, names the wrong ones, and says what it left out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.data.generated import GeneratedImages
from hybridvit.errors import DatasetError
from hybridvit.evaluate.run import Evaluation, evaluate_model
from hybridvit.report.content import Confusion
from hybridvit.tasks.classify.task import Classify


def evaluated(model: nn.Module, root: Path, *, on_bad_image: str = "error", **options: Any) -> Evaluation:
    """The model on a folder of class folders, as its card says."""
    task, card = Classify(), model.card
    assert isinstance(card, ModelCard)
    return evaluate_model(model, task.labelled(str(root), card, on_bad_image=on_bad_image), task, card, **options)


def test_a_folder_of_other_classes_than_an_unnamed_models_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name / "0.png")
    with pytest.raises(DatasetError, match="has 2 classes, but the model answers with 5 classes and does not"):
        evaluated(hybridvit.create_model("fastvit_debug", num_classes=5), tmp_path)


class CountingModel(nn.Module):
    """Answers with the brightest of the three colour channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.mean((2, 3))  # b c


def colours(root: Path) -> None:
    for label, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixel = [0, 0, 0]
            pixel[label if number else 0] = 200  # the first image of each class is wrong in all but one
            Image.new("RGB", (40, 40), tuple(pixel)).save(root / name / f"{number}.png")


def test_evaluation_counts_each_image_once_and_names_the_wrong_ones(tmp_path: Path) -> None:
    colours(tmp_path)
    model = CountingModel().train()
    model.card = hybridvit.create_model("fastvit_debug", num_classes=3).card  # type: ignore[assignment]
    result = evaluated(model, tmp_path, batch_size=4, num_examples=9)
    assert result.num_samples == 9
    assert result.scores.values["top1"] == pytest.approx(100 * 7 / 9, abs=1e-3)
    assert result.scores.values["top5"] == 100.0  # of three classes
    (confusion,) = (part for part in result.scores.parts if isinstance(part, Confusion))
    assert confusion == Confusion(class_names=tuple("012"), counts=[[3, 0, 0], [1, 2, 0], [1, 0, 2]])
    right = [number not in (3, 6) for number in range(9)]  # the first of the green ones and of the red ones
    assert result.scores.per_image is not None
    assert result.scores.per_image.tolist() == right
    assert {example.sample: example.right for example in result.scores.examples} == dict(enumerate(right))
    wrong = [(example.sample, example.said, example.truth) for example in result.scores.examples if not example.right]
    assert sorted(wrong) == [(3, "said 0", "is 1"), (6, "said 0", "is 2")]
    assert model.training


def test_evaluation_says_how_many_files_it_left_out(tmp_path: Path) -> None:
    colours(tmp_path)
    (tmp_path / "red" / "0.png").write_bytes(b"")
    model = CountingModel()
    model.card = hybridvit.create_model("fastvit_debug", num_classes=3).card  # type: ignore[assignment]
    result = evaluated(model, tmp_path, on_bad_image="skip")
    assert (result.num_samples, result.num_skipped) == (8, 1)


def test_evaluation_of_one_class_is_refused() -> None:
    card = hybridvit.create_model("fastvit_debug", num_classes=1).card
    with pytest.raises(DatasetError, match="every answer would be right"):
        evaluate_model(CountingModel(), GeneratedImages(length=4, num_classes=1), Classify(), card)
