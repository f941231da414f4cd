"""The images of a classification recipe."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric

from hybridvit.card import Preprocessing
from hybridvit.data.digits import write_digits
from hybridvit.data.folder import ImageFolder
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.images import Images
from hybridvit.data.scan import Listing, scan_folder
from hybridvit.data.transforms import eval_transform, train_transform
from hybridvit.data.two_marks import TwoMarks
from hybridvit.errors import DatasetError, HybridViTError
from hybridvit.models.registry import find_variant
from hybridvit.training.recipe import Recipe
from hybridvit.training.recipe_groups import DataConfig

DIGITS_FOLDER = "runs/data/digits"
TWO_MARKS_TRAINING, TWO_MARKS_VALIDATION = 3200, 1000  # images an epoch, new in each; and to validate on


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training and validation images with one class map, and how validation prepares them."""

    train: Images
    validation: Images
    preprocessing: Preprocessing


def load_splits(recipe: Recipe, fabric: Fabric) -> Splits:
    """The recipe's images. The class map is the training set's. Raises DatasetError where they are not fit to use."""
    data = recipe.data
    preprocessing = dataclasses.replace(
        find_variant(recipe.model).preprocessing,
        image_size=(data.image_size, data.image_size),
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        exif_orientation=data.exif_orientation,
    )
    if data.source == "generated":
        size = (data.image_size, data.image_size)
        return Splits(
            train=GeneratedImages(length=max(10, 2 * data.total_batch), image_size=size, training=True),
            validation=GeneratedImages(length=max(10, data.total_batch), image_size=size, seed=1),
            preprocessing=preprocessing,
        )
    if data.source == "two_marks":
        return Splits(
            train=TwoMarks(length=TWO_MARKS_TRAINING, image_size=data.image_size, seed=recipe.seed, training=True),
            validation=TwoMarks(length=TWO_MARKS_VALIDATION, image_size=data.image_size),
            preprocessing=preprocessing,
        )
    root = Path(data.root).expanduser()
    if data.source == "digits":
        root = Path(data.root or DIGITS_FOLDER).expanduser()
        _write_digits_once(root, fabric)
    train_files, validation_files = list_images(data, root)
    train = ImageFolder(
        train_files,
        transform=train_transform(recipe.augment, preprocessing, reduced_decode=data.reduced_decode),
        training=True,
        on_bad_image=data.on_bad_image,
        seed=recipe.seed,
    )
    validation = ImageFolder(
        validation_files,
        transform=eval_transform(preprocessing),
        on_bad_image=data.on_bad_image,
    )
    return Splits(train=train, validation=validation, preprocessing=preprocessing)


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


def _write_digits_once(root: Path, fabric: Fabric) -> None:
    """Rank 0 writes; all ranks raise what it raised."""
    problem: HybridViTError | None = None
    if fabric.global_rank == 0:
        try:
            write_digits(root)
        except HybridViTError as error:
            problem = error
    problem = fabric.broadcast(problem)
    if problem is not None:
        raise problem
