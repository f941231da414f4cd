"""The images of a classification recipe."""

import dataclasses

import numpy as np

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.class_names import difference
from hybridvit.data.depth import MOST_LOOKED_AT, remarks_on_depth
from hybridvit.data.encoded import EncodedImages, ImageOptions, OnBadImage
from hybridvit.data.folder import ImageFolder
from hybridvit.data.samples import LabelledImages
from hybridvit.data.shards.remote import is_url
from hybridvit.data.table import ENDINGS, is_table, list_table
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import DatasetError, UsageError
from hybridvit.models.registry import find_variant
from hybridvit.task import Splits
from hybridvit.tasks.classify.config import SOURCES, ClassifyRecipe


def open_splits(recipe: ClassifyRecipe) -> Splits:
    """The recipe's images. The class map is the training set's. Raises DatasetError where they are not fit to use."""
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
    evaluation: ImageOptions = {"transform": EvalTransform(preprocessing), "on_bad_image": data.on_bad_image}
    train, validation = SOURCES[data.source].load()(data, training, evaluation)
    check_images(train, validation)
    if data.sampler == "balanced":
        train.balanced_labels = train.labels
    train.remarks = [*train.remarks, *_on_depth(train, preprocessing)]
    return Splits(train=train, validation=validation, preprocessing=preprocessing)


def _on_depth(images: LabelledImages, preprocessing: Preprocessing) -> list[str]:
    """What the levels of a few images give reason to say; images that would have to be fetched are not looked at."""
    if preprocessing.levels is not None or not isinstance(images, EncodedImages) or is_url(images.paths[0]):
        return []
    step = max(1, len(images) // MOST_LOOKED_AT)
    return remarks_on_depth(images.encoded(0, place) for place in range(0, len(images), step)[:MOST_LOOKED_AT])


def check_images(train: LabelledImages, validation: LabelledImages) -> None:
    """Raise DatasetError for images that no training can use, whatever their source: before a step, not in one."""
    num_classes = len(train.class_names)
    if num_classes < 2:
        names = ", ".join(map(repr, train.class_names)) or "none"
        raise DatasetError(
            f"The training images have {num_classes} class ({names}): every answer would be right. Add another class."
        )
    if train.class_names != validation.class_names:
        raise DatasetError(
            "The validation images have other classes than the training images "
            f"({difference(train.class_names, validation.class_names)}). Give both the same ones."
        )
    for images, key in ((train, "data.train"), (validation, "data.val")):
        if not len(images):
            raise DatasetError(f"The split that {key} names has no images. Name another, or add images.")
        labels = np.asarray(images.labels)
        if labels.min() < 0 or labels.max() >= num_classes:
            raise DatasetError(
                f"The images of {key} have labels from {labels.min()} to {labels.max()}, but there are {num_classes} "
                f"classes, 0 to {num_classes - 1}. Correct the labels, or name all classes."
            )


def open_labelled(
    root: str,
    card: ModelCard,
    *,
    on_bad_image: OnBadImage = "error",
    image_column: str = "",
    label_column: str = "",
) -> LabelledImages:
    """A folder of class folders, or a table of paths and labels, prepared as the card says, with the card's class map.

    Raises DatasetError where the folder has a class that the model does not know, or, if the card names no classes,
    another number of them than the model; UsageError for columns where there is no table.
    """
    known = card.class_names or None
    if (image_column or label_column) and not is_table(root):
        raise UsageError(
            f"image_column and label_column are for a table, but {root} is no file that ends in {', '.join(ENDINGS)}. "
            "Leave them out, or give the table."
        )
    images = ImageFolder(
        list_table(root, known, image_column=image_column, label_column=label_column) if is_table(root) else root,
        transform=EvalTransform(card.preprocessing),
        class_names=known,
        on_bad_image=on_bad_image,
    )
    images.remarks = [*images.remarks, *_on_depth(images, card.preprocessing)]
    num_classes = card.options.get("num_classes", 1000)
    if len(images.class_names) != num_classes:
        raise DatasetError(
            f"{root} has {len(images.class_names)} class folders, but the model answers with {num_classes} classes and "
            "does not name them. Give a folder with exactly these classes, in the order of their names."
        )
    return images
