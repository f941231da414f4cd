"""Two marks: nothing in the images gives the label away but the pair, and windows alone cannot join the pair."""

from collections import Counter
from pathlib import Path
from typing import cast

import pytest
import torch

import hybridvit
from hybridvit.data.two_marks import KINDS, MARK_PX, TwoMarks, disc
from hybridvit.errors import UsageError
from hybridvit.models.fastervit.model import FasterViT
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.trial.dry_run import dry_run

NUM_IMAGES = 2000
STAGE_STRIDE = 8  # of the attention stage of the recipe


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("two_marks")


def pixels(images: TwoMarks, index: int, epoch: int = 0) -> torch.Tensor:
    image = images.draw(epoch, index).image
    assert image is not None
    return image


def test_images_depend_on_nothing_but_split_seed_epoch_and_index() -> None:
    images = TwoMarks(length=8, training=True)
    assert torch.equal(pixels(images, 3), pixels(TwoMarks(length=8, training=True), 3))
    others = [pixels(images, 5), pixels(images, 3, epoch=1), pixels(TwoMarks(length=8, training=True, seed=1), 3)]
    assert not any(torch.equal(pixels(images, 3), other) for other in others)
    validation = TwoMarks(length=8)
    assert torch.equal(pixels(validation, 3), pixels(validation, 3, epoch=1))


def test_no_training_image_is_a_validation_image() -> None:
    training = {images.tobytes() for images in (pixels(TwoMarks(length=8, training=True), i).numpy() for i in range(8))}
    assert not any(pixels(TwoMarks(length=8), index).numpy().tobytes() in training for index in range(8))


def test_the_label_is_in_the_pair_and_in_neither_mark() -> None:
    images = TwoMarks(length=NUM_IMAGES, training=True)
    kinds = [images.kinds(0, index) for index in range(NUM_IMAGES)]
    assert Counter(images.labels) == {0: NUM_IMAGES // 2, 1: NUM_IMAGES // 2}
    assert all((first != second) == label for (first, second), label in zip(kinds, images.labels, strict=True))
    for place in range(2):
        for label in range(2):
            share = sum(pair[place] for pair, given in zip(kinds, images.labels, strict=True) if given == label) / 1000
            assert abs(share - 0.5) < 0.06, (place, label)  # 4 standard deviations


def test_the_marks_are_where_the_data_set_says_and_half_the_side_apart() -> None:
    images = TwoMarks(length=NUM_IMAGES, image_size=100)
    sums = torch.zeros(2, 4)
    for index in range(NUM_IMAGES):
        one, other = images.places(0, index)
        assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) - MARK_PX >= 50
        assert all(0 <= corner <= 100 - MARK_PX for corner in (*one, *other))
        sums[images.labels[index]] += torch.tensor((*one, *other))
    means = sums / (NUM_IMAGES // 2)
    assert (means[0] - means[1]).abs().max() < 6  # pixels, at a standard deviation of the difference of 1.4
    for index in range(4):
        image = pixels(images, index)
        for kind, (top, left) in zip(images.kinds(0, index), images.places(0, index), strict=True):
            box = image[:, top : top + MARK_PX, left : left + MARK_PX]
            assert (box[:, disc() == 1].mean() * KINDS[kind]).item() == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("options", "said"), [({"length": 1}, "1 images cannot"), ({"image_size": 64}, "68 px")])
def test_what_cannot_be_drawn_is_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TwoMarks(**{"length": 8, **options})


def model_of(recipe: Recipe, **changes: object) -> FasterViT:
    options = {**recipe.model_options, **changes}
    if changes.get("mixers") == ("conv", "window"):
        del options["carrier_size"], options["propagate"]
    return cast(FasterViT, hybridvit.create_model(recipe.model, num_classes=2, **options).double().eval())


def moved_by_the_other_mark(model: FasterViT, images: TwoMarks, index: int) -> float:
    """The largest gradient of the map over one mark with respect to the pixels of the other."""
    image = pixels(images, index).double()[None].requires_grad_()
    (top, left), (other_top, other_left) = images.places(0, index)
    fmap = model.forward_features(image)
    assert fmap.shape[-1] == images.image_size // STAGE_STRIDE
    rows, columns = (slice(start // STAGE_STRIDE, (start + MARK_PX - 1) // STAGE_STRIDE + 1) for start in (top, left))
    fmap[0, :, rows, columns].square().sum().backward()
    assert image.grad is not None
    other = image.grad[0, :, other_top : other_top + MARK_PX, other_left : other_left + MARK_PX]
    return other.abs().max().item()


@pytest.mark.parametrize(
    "changes", [{"mixers": ("conv", "window")}, {"carrier_attention": False}], ids=["windows", "silent carriers"]
)
def test_without_exchange_nothing_joins_the_two_marks(recipe: Recipe, changes: dict[str, object]) -> None:
    model, images = model_of(recipe, **changes), TwoMarks(length=40, image_size=recipe.data.image_size)
    assert [moved_by_the_other_mark(model, images, index) for index in range(40)] == [0.0] * 40


def test_carriers_join_the_two_marks(recipe: Recipe) -> None:
    model, images = model_of(recipe), TwoMarks(length=4, image_size=recipe.data.image_size)
    assert all(moved_by_the_other_mark(model, images, index) > 0 for index in range(4))


def test_the_recipe_passes_a_dry_run(recipe: Recipe, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dry_run(load_recipe("two_marks", {"output": str(tmp_path / "run"), "accelerator": "cpu"}))
    assert "The recipe runs" in capsys.readouterr().out


def test_the_marks_have_one_size_so_images_of_several_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'data.train_sizes' is set, but the marks .* have one size"):
        load_recipe("two_marks", {"data.train_sizes": "[64, 96]"})
