"""What a training starts from: how its images are prepared, and its weights."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

import hybridvit
from hybridvit.card import Preprocessing
from hybridvit.checkpoints import read_tensors
from hybridvit.checkpoints.keymaps import form_of, naming_of, to_ours
from hybridvit.checkpoints.matching import class_names_of, num_classes_of
from hybridvit.checkpoints.metadata import card_of
from hybridvit.create import create_model
from hybridvit.data.class_names import difference
from hybridvit.data.depth import MOST_LOOKED_AT, remarks_on_depth
from hybridvit.data.encoded import ImageOptions, TransformedImages
from hybridvit.data.samples import Samples
from hybridvit.data.shards.remote import is_url
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.models.backbone import Backbone
from hybridvit.models.registry import find_variant
from hybridvit.models.whole import WholeModel
from hybridvit.models.with_head import WithHead
from hybridvit.pretrained import find_weights
from hybridvit.recipe.headed import HeadedRecipe
from hybridvit.recipe.labels import LabelsRecipe
from hybridvit.task import Splits


def prepared(recipe: LabelsRecipe) -> tuple[Preprocessing, ImageOptions, ImageOptions]:
    """How the recipe prepares images: as the model's card will have it, to train on, and to validate on."""
    data = recipe.data
    preprocessing = dataclasses.replace(
        find_variant(recipe.model).preprocessing,
        image_size=(data.image_size, data.image_size),
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        exif_orientation=data.exif_orientation,
        levels=(data.levels[0], data.levels[1]) if data.levels else None,
    )
    training: ImageOptions = {
        "transform": TrainTransform(recipe.augment, preprocessing, reduced_decode=data.reduced_decode),
        "sizes": data.train_sizes,
        "training": True,
        "on_bad_image": data.on_bad_image,
        "seed": recipe.seed,
    }
    return preprocessing, training, {"transform": EvalTransform(preprocessing), "on_bad_image": data.on_bad_image}


def add_remarks_on_depth(images: Samples, preprocessing: Preprocessing) -> None:
    """Add what the levels of a few images give reason to say; those that would have to be fetched are not looked at."""
    if preprocessing.levels is not None or not isinstance(images, TransformedImages) or is_url(images.paths[0]):
        return
    step = max(1, len(images) // MOST_LOOKED_AT)
    sources = (images.encoded(0, place) for place in range(0, len(images), step)[:MOST_LOOKED_AT])
    images.remarks = [*images.remarks, *remarks_on_depth(sources)]


def starting_model(recipe: LabelsRecipe, class_names: tuple[str, ...]) -> Backbone:
    """The recipe's architecture for these classes, in training form, with the recipe's pretrained weights if any.

    Windows, image size and stochastic depth may differ from those the weights were trained with: FasterViT computes
    its biases and embeddings of places for any. Classes may differ only with `reset_head`, which gives a fresh
    classifier. Raises UsageError or CheckpointError for weights that do not fit.
    """
    options: dict[str, Any] = dict(recipe.model_options)
    if recipe.pretrained is not False:
        found = find_weights(recipe.model, recipe.pretrained)
        _check(found.path, found.source, class_names, recipe.reset_head)
    model = create_model(
        recipe.model,
        pretrained=recipe.pretrained,
        num_classes=len(class_names),
        image_size=recipe.data.image_size,
        **options,
    )
    assert isinstance(model, Backbone)
    if recipe.reset_head:
        model.reset_classifier(len(class_names))
    return model


def started(recipe: LabelsRecipe, splits: Splits) -> Backbone:
    """`starting_model` for the classes of the images to train on, with its card. Raises as that does."""
    model = starting_model(recipe, splits.train.class_names)
    model.card = dataclasses.replace(
        model.card,
        task=recipe.task,
        preprocessing=splits.preprocessing,
        class_names=splits.train.class_names,
        source=f"trained by hybridvit {hybridvit.__version__} on {recipe.data.source} images",
    )
    return model


def preparation_of(recipe: HeadedRecipe) -> Preprocessing:
    """How pictures are prepared for the recipe's model with a head, as its card will have it."""
    with torch.device("meta"):
        model = create_model(recipe.model, image_size=recipe.data.image_size, **recipe.creation)
    assert isinstance(model, WholeModel)
    data = recipe.data
    return dataclasses.replace(
        model.card.preprocessing,
        interpolation=data.interpolation,
        exif_orientation=data.exif_orientation,
        levels=(data.levels[0], data.levels[1]) if data.levels else None,
    )


def started_with_head(recipe: HeadedRecipe, splits: Splits, *, num_classes: int, facts: dict[str, Any]) -> WithHead:
    """The recipe's model with a head, in training form, with the recipe's pretrained weights if any, and with its card.

    `facts` are the card's `class_facts`. Raises UsageError or CheckpointError for weights that do not fit.
    """
    model = create_model(
        recipe.model,
        pretrained=recipe.pretrained,
        num_classes=num_classes,
        image_size=recipe.data.image_size,
        **recipe.creation,
    )
    assert isinstance(model, WithHead)
    model.card = dataclasses.replace(
        model.card,
        preprocessing=splits.preprocessing,
        class_names=splits.train.class_names,
        class_facts=facts,
        source=f"trained by hybridvit {hybridvit.__version__} on {recipe.data.source} images",
    )
    return model


def _check(path: Path, source: str, class_names: tuple[str, ...], reset_head: bool) -> None:
    """Raise UsageError or CheckpointError for a file of weights that cannot be trained further on these classes."""
    file = read_tensors(path, say=False)  # create_model says it
    naming = naming_of(file.tensors, path)
    tensors = to_ours(file.tensors, naming, path)
    if form_of(tensors) != "training":
        raise CheckpointError(
            f"{source} is folded: its branches are merged, and training needs them apart. Give the weights it was "
            "folded from, such as the model.safetensors of their run."
        )
    if reset_head:
        return
    card = card_of(file)
    known = card.class_names if card is not None else class_names_of(tensors, naming)  # empty if unknown
    num_classes = num_classes_of(tensors)  # 0: it has no classifier
    fix = "Add --reset_head to start with a new classifier and keep all other weights."
    if num_classes != len(class_names):
        has = f"has {num_classes} classes" if num_classes else "has no classifier"
        how = f" ({difference(known, class_names)})" if known else ""
        raise UsageError(f"{source} {has}, the images have {len(class_names)}{how}. {fix}")
    if known and known != class_names:
        raise UsageError(
            f"{source} has other classes than the images, as many as they are ({difference(known, class_names)}). {fix}"
        )
