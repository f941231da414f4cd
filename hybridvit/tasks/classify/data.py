"""The images of a classification recipe."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.class_names import difference
from hybridvit.data.digits import write_digits
from hybridvit.data.encoded import OnBadImage
from hybridvit.data.folder import ImageFolder
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.samples import LabelledImages
from hybridvit.data.scan import Listing, scan_folder
from hybridvit.data.transforms import eval_transform, train_transform
from hybridvit.data.two_marks import TwoMarks
from hybridvit.errors import DatasetError
from hybridvit.models.registry import find_variant
from hybridvit.recipe.groups import DataConfig
from hybridvit.task import Splits
from hybridvit.tasks.classify.config import ClassifyRecipe

Options = dict[str, Any]
DIGITS_FOLDER = "runs/data/digits"
TWO_MARKS_TRAINING, TWO_MARKS_VALIDATION = 3200, 1000  # images an epoch, new in each; and to validate on


def open_splits(recipe: ClassifyRecipe) -> Splits:
    """The recipe's images. The class map is the training set's. Raises DatasetError where they are not fit to use."""
    data = recipe.data
    preprocessing = dataclasses.replace(
        find_variant(recipe.model).preprocessing,
        image_size=(data.image_size, data.image_size),
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        exif_orientation=data.exif_orientation,
    )
    train: LabelledImages
    validation: LabelledImages
    if data.source == "generated":
        size = (data.image_size, data.image_size)
        train = GeneratedImages(
            length=max(10, 2 * data.total_batch),
            image_size=size,
            sizes=data.train_sizes,
            seed=recipe.seed if data.train_sizes else 0,
            training=True,
        )
        validation = GeneratedImages(length=max(10, data.total_batch), image_size=size, seed=1)
    elif data.source == "two_marks":
        train = TwoMarks(length=TWO_MARKS_TRAINING, image_size=data.image_size, seed=recipe.seed, training=True)
        validation = TwoMarks(length=TWO_MARKS_VALIDATION, image_size=data.image_size)
    else:
        if data.source == "digits":
            write_digits(_digits_folder(data))
        train, validation = open_files(recipe, preprocessing)
    return Splits(train=train, validation=validation, preprocessing=preprocessing)


def open_files(recipe: ClassifyRecipe, preprocessing: Preprocessing) -> tuple[LabelledImages, LabelledImages]:
    """The training and validation images of a source that keeps files. Raises DatasetError, UsageError."""
    data = recipe.data
    open_source = {"shards": _open_shards, "huggingface": _open_hugging_face}.get(data.source, _open_folders)
    train, validation = open_source(
        data,
        {
            "transform": train_transform(recipe.augment, preprocessing, reduced_decode=data.reduced_decode),
            "sizes": data.train_sizes,
            "training": True,
            "on_bad_image": data.on_bad_image,
            "seed": recipe.seed,
        },
        {"transform": eval_transform(preprocessing), "on_bad_image": data.on_bad_image},
    )
    check_images(train, validation)
    return train, validation


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


def _open_folders(data: DataConfig, train: Options, validation: Options) -> tuple[LabelledImages, LabelledImages]:
    root = _digits_folder(data) if data.source == "digits" else Path(data.root).expanduser()
    train_files, validation_files = list_images(data, root)
    return ImageFolder(train_files, **train), ImageFolder(validation_files, **validation)


def _open_shards(data: DataConfig, train: Options, validation: Options) -> tuple[LabelledImages, LabelledImages]:
    from hybridvit.data.shards.cache import ShardCache
    from hybridvit.data.shards.images import ShardImages
    from hybridvit.data.shards.remote import is_url

    cache = ShardCache(Path(data.cache), round(data.cache_gb * 1e9)) if is_url(data.root) else None
    root = data.root.rstrip("/")
    train_images = ShardImages(f"{root}/{data.train}", window=data.shuffle_shards, cache=cache, **train)
    return train_images, ShardImages(
        f"{root}/{data.val}", class_names=train_images.class_names, window=1, cache=cache, **validation
    )


def _open_hugging_face(data: DataConfig, train: Options, validation: Options) -> tuple[LabelledImages, LabelledImages]:
    from hybridvit.data.huggingface import HuggingFaceImages, hold_out, load_split

    columns: Options = {"image_column": data.image_column, "label_column": data.label_column}
    train_rows = load_split(data.root, data.train)
    if data.val_share:
        train_rows, validation_rows = hold_out(train_rows, data.val_share, data.root, data.label_column)
    else:
        validation_rows = load_split(data.root, data.val)
    train_images = HuggingFaceImages(train_rows, source=f"{data.root}/{data.train}", **columns, **train)
    return train_images, HuggingFaceImages(
        validation_rows,
        source=f"{data.root}/{data.train if data.val_share else data.val}",
        class_names=train_images.class_names,
        **columns,
        **validation,
    )


def open_labelled(root: str, card: ModelCard, *, on_bad_image: OnBadImage = "error") -> LabelledImages:
    """A folder of class folders, prepared as the card says, with the card's class map.

    Raises DatasetError where the folder has a class that the model does not know, or, if the card names no classes,
    another number of them than the model.
    """
    images = ImageFolder(
        root,
        transform=eval_transform(card.preprocessing),
        class_names=card.class_names or None,
        on_bad_image=on_bad_image,
    )
    num_classes = card.options.get("num_classes", 1000)
    if len(images.class_names) != num_classes:
        raise DatasetError(
            f"{root} has {len(images.class_names)} class folders, but the model answers with {num_classes} classes and "
            "does not name them. Give a folder with exactly these classes, in the order of their names."
        )
    return images


def _digits_folder(data: DataConfig) -> Path:
    return Path(data.root or DIGITS_FOLDER).expanduser()


def list_images(data: DataConfig, root: Path) -> tuple[Listing, Listing]:
    """The training and the validation images below `root`, with one class map, that of the training images.

    Raises DatasetError where a folder is missing, with the keys that would name it, or as `scan_folder`.
    """
    if not root.is_dir():
        raise DatasetError(f"data.root is {root}, which is no folder. Check the path.")
    present = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    there = ", ".join(f"'{name}'" for name in present[:5]) + (" and more" if len(present) > 5 else "") or "none"
    if not (root / data.train).is_dir():
        raise DatasetError(
            f"{root} has no folder '{data.train}' for the images to train on; its folders are: {there}. Name one with "
            "--data.train, or, if these are the classes, use --data.train . --data.val_share 0.2."
        )
    listing = scan_folder(root / data.train)
    if data.val_share:
        return listing.split(data.val_share)
    if not (root / data.val).is_dir():
        raise DatasetError(
            f"{root} has no folder '{data.val}' for the images to validate on; its folders are: {there}. Name one with "
            "--data.val, or hold out a fifth of the training images with --data.val_share 0.2."
        )
    return listing, scan_folder(root / data.val, listing.class_names)
