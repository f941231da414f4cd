"""Which weights a run may start from, and what becomes of their classifier."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import trained_like
from tiny_runs import DIGITS, PLAIN

import hybridvit
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.starting import starting_model
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("saved")
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))
    model.card = dataclasses.replace(model.card, class_names=DIGITS)
    hybridvit.save_checkpoint(model, tmp_path / "model.safetensors")
    hybridvit.save_checkpoint(hybridvit.fold(model), tmp_path / "folded.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((*DIGITS, "cat", "dog"), r"has 10 classes, the images have 12 \(new: cat, dog\)\. Add --reset_head"),
        (DIGITS[:8], r"has 10 classes, the images have 8 \(absent: 8, 9\)\. Add --reset_head"),
        ((*DIGITS[:9], "cat"), r"other classes than the images, as many as they are \(new: cat; absent: 9\)"),
        (DIGITS[::-1], r"the same in another order, first at 0, '0' there and '9' here"),
    ],
)
def test_other_classes_need_a_new_head_and_the_message_says_which(
    saved: Path, classes: tuple[str, ...], text: str
) -> None:
    recipe = dataclasses.replace(PLAIN, pretrained=str(saved))
    with pytest.raises(UsageError, match=text):
        starting_model(recipe, classes)
    model = starting_model(dataclasses.replace(recipe, reset_head=True), classes)
    before = hybridvit.load(saved).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("head.fc"):
            assert value.shape != before[name].shape or name.endswith("bias") or not torch.equal(value, before[name])
        else:
            assert torch.equal(value, before[name]), name
    assert model.num_classes == len(classes)


def test_the_same_classes_keep_the_head_unless_a_new_one_is_asked_for(saved: Path) -> None:
    recipe, before = dataclasses.replace(PLAIN, pretrained=str(saved)), hybridvit.load(saved).state_dict()
    kept = starting_model(recipe, DIGITS).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in kept.items())
    fresh = starting_model(dataclasses.replace(recipe, reset_head=True), DIGITS).state_dict()
    assert not torch.equal(fresh["head.fc.weight"], before["head.fc.weight"])


def test_upstream_weights_are_taken_for_imagenet_and_need_a_new_head_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "apple.pth"
    hybridvit.checkpoints.save_upstream(hybridvit.create_model("fastvit_t8"), path, "apple")
    recipe = dataclasses.replace(PLAIN, model="fastvit_t8", pretrained=str(path))
    with pytest.raises(UsageError, match=r"apple.pth has 1000 classes, the images have 10 \(new: 0, 1, 2, 3, 4 and 5"):
        starting_model(recipe, DIGITS)
    with pytest.raises(UsageError, match=r"as many as they are \(new: 0, 1"):
        starting_model(recipe, tuple(map(str, range(1000))))
    assert starting_model(recipe, hybridvit.data.imagenet.class_names()).num_classes == 1000


def test_folded_weights_cannot_be_trained_further(saved: Path) -> None:
    folded = str(saved.with_name("folded.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"is folded: its branches are merged.*Give the weights it was folded from"
    ):
        starting_model(dataclasses.replace(PLAIN, pretrained=folded, reset_head=True), DIGITS)


def test_a_new_head_without_pretrained_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="the classifier is new in any case"):
        dataclasses.replace(PLAIN, reset_head=True)


@pytest.mark.parametrize(
    ("model", "before", "after", "sides"),
    [
        ("fastervit_debug", (7, 7, 8, 8), (7, 7, 12, 12), (256, 384)),
        ("fastervit_debug", (7, 7, 8, 8), (7, 7, 16, 16), (256, 512)),
        ("fastervit_debug", (7, 7, 8, 8), (7, 7, 24, 24), (256, 768)),
        ("fastervit_4_21k_224", (7, 7, 14, 7), (7, 7, 24, 12), (224, 384)),
        ("fastervit_4_21k_224", (7, 7, 14, 7), (7, 7, 48, 24), (224, 768)),
    ],
)
def test_weights_of_one_window_fit_the_windows_of_the_papers_table_6(
    tmp_path: Path, model: str, before: tuple[int, ...], after: tuple[int, ...], sides: tuple[int, int]
) -> None:
    small: dict[str, Any] = {} if model.endswith("debug") else {"position_hidden": 8, "mlp_ratio": 2}
    if small:
        small |= {"depths": (1, 1, 1, 1), "widths": (4, 8, 16, 32), "num_heads": (1, 1, 1, 1), "stem_width": 4}
    trained = trained_like(hybridvit.create_model(model, num_classes=10, windows=before, image_size=sides[0], **small))
    hybridvit.save_checkpoint(trained, tmp_path / "model.safetensors")
    recipe = ClassifyRecipe(
        model=model,
        model_options={"windows": after, **small},
        pretrained=str(tmp_path / "model.safetensors"),
        data=ClassifyData(source="generated", image_size=sides[1]),
    )
    tuned = starting_model(recipe, DIGITS).eval()
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in tuned.state_dict().items())
    if sides[1] == 384:  # the larger ones take seconds
        images = torch.randn(1, 3, 384, 384)
        with torch.no_grad():
            assert not torch.equal(tuned(images), trained(images))
    assert tuned.card.options["windows"] == after
