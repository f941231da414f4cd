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
from hybridvit.data.transforms import eval_transform, train_transform
from hybridvit.errors import HybridViTError
from hybridvit.models.registry import find_variant
from hybridvit.training.recipe import Recipe

DIGITS_FOLDER = "runs/data/digits"


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
    )
    if data.source == "generated":
        size = (data.image_size, data.image_size)
        return Splits(
            train=GeneratedImages(length=max(10, 2 * data.total_batch), image_size=size, training=True),
            validation=GeneratedImages(length=max(10, data.total_batch), image_size=size, seed=1),
            preprocessing=preprocessing,
        )
    root = Path(data.root).expanduser()
    if data.source == "digits":
        root = Path(data.root or DIGITS_FOLDER).expanduser()
        _write_digits_once(root, fabric)
    train = ImageFolder(
        root / data.train,
        transform=train_transform(recipe.augment, preprocessing),
        training=True,
        on_bad_image=data.on_bad_image,
        seed=recipe.seed,
    )
    validation = ImageFolder(
        root / data.val,
        transform=eval_transform(preprocessing),
        class_names=train.class_names,
        on_bad_image=data.on_bad_image,
    )
    return Splits(train=train, validation=validation, preprocessing=preprocessing)


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
