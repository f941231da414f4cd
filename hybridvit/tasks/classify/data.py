"""The images of a classification recipe."""

from functools import partial

import numpy as np

from hybridvit.card import ModelCard
from hybridvit.data.class_names import difference
from hybridvit.data.encoded import OnBadImage
from hybridvit.data.folder import ImageFolder
from hybridvit.data.listing import Listing
from hybridvit.data.samples import LabelledImages
from hybridvit.data.table import ENDINGS, all_listed, is_table, list_table
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import DatasetError, UsageError
from hybridvit.models.registry import num_outputs
from hybridvit.starting import add_remarks_on_depth, prepared
from hybridvit.task import Splits
from hybridvit.tasks.classify.config import SOURCES, ClassifyData, ClassifyRecipe


def open_splits(recipe: ClassifyRecipe) -> Splits:
    """The recipe's images. The class map is the training set's. Raises DatasetError where they are not fit to use."""
    data = recipe.data
    preprocessing, training, evaluation = prepared(recipe)
    train, validation = SOURCES[data.source].load()(data, training, evaluation)
    check_images(train, validation)
    if data.sampler == "balanced":
        train.balanced_labels = train.labels
    add_remarks_on_depth(train, preprocessing)
    return Splits(train=train, validation=validation, preprocessing=preprocessing)


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


def listed(data: ClassifyData) -> dict[str, Listing[int]]:
    """The images of the tables that `data` names, by split; their files may be absent."""
    columns = {"image_column": data.image_column, "label_column": data.label_column}
    return all_listed(partial(list_table, **columns, size_of=lambda path: 0), data)


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
    add_remarks_on_depth(images, card.preprocessing)
    num_classes = num_outputs(card)
    if len(images.class_names) != num_classes:
        raise DatasetError(
            f"{root} has {len(images.class_names)} classes, but the model answers with {num_classes} classes and "
            "does not name them. Give images of exactly these classes, in the order of their names."
        )
    return images
