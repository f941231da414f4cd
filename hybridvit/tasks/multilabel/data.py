"""Images with any number of labels."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hybridvit.card import ModelCard
from hybridvit.data.encoded import ImageOptions, OnBadImage, TransformedImages
from hybridvit.data.listing import Labels, Listing
from hybridvit.data.samples import Samples
from hybridvit.data.table import all_listed, in_two, is_table
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import DatasetError, some
from hybridvit.starting import add_remarks_on_depth, prepared
from hybridvit.task import Splits
from hybridvit.tasks.multilabel.config import SOURCES, MultilabelData, MultilabelRecipe
from hybridvit.tasks.multilabel.table import list_labels

NONE = -1  # fills the rows of targets


class LabelSets(Samples):
    """Images of which each has the labels `labels`: indices into class_names, in ascending order."""

    labels: Sequence[Labels]


class ListedFiles(TransformedImages, LabelSets):
    """Image files with their labels; see `TransformedImages` for what becomes of them."""

    def __init__(self, listing: Listing[Labels], **options: Unpack[ImageOptions]) -> None:
        super().__init__(
            paths=listing.paths, class_names=listing.class_names, fingerprint=listing.fingerprint, **options
        )
        self.labels = listing.labels

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]

    def target(self, index: int) -> Tensor:
        return torch.tensor(self.labels[index], dtype=torch.long)


def padded(labels: Sequence[Tensor]) -> Tensor:
    """b most: the labels of each image, filled up with NONE."""
    return pad_sequence(list(labels), batch_first=True, padding_value=NONE)


def as_zeros_and_ones(targets: Tensor, num_classes: int) -> Tensor:
    """b classes: 1 where an image has a label, from what `padded` makes."""
    places = targets.where(targets != NONE, num_classes)
    marks = torch.zeros(len(targets), num_classes + 1, device=targets.device)
    return marks.scatter_(1, places, 1.0)[:, :num_classes]


def open_tables(data: MultilabelData, train: ImageOptions, validation: ImageOptions) -> tuple[ListedFiles, ListedFiles]:
    """The images that two tables in data.root name, or one and a part of it. Raises as `list_labels`."""
    remarks: list[str] = []
    lists = partial(list_labels, data=data, say=remarks.append)
    listing, rest = in_two(lists, data, say=remarks.append)
    images = ListedFiles(listing, **train)
    images.remarks = remarks
    return images, ListedFiles(rest, **validation)


def listed(data: MultilabelData) -> dict[str, Listing[Labels]]:
    """The images of the tables that `data` names, by split; their files may be absent."""
    return all_listed(partial(list_labels, data=data, size_of=lambda path: 0), data)


def open_splits(recipe: MultilabelRecipe) -> Splits:
    """The recipe's images. The class map is the training set's. Raises DatasetError where they are not fit to use."""
    preprocessing, training, evaluation = prepared(recipe)
    train, validation = SOURCES[recipe.data.source].load()(recipe.data, training, evaluation)
    check_labels(train, "data.train")
    check_labels(validation, "data.val")
    add_remarks_on_absent(train)
    add_remarks_on_depth(train, preprocessing)
    return Splits(train=train, validation=validation, preprocessing=preprocessing)


def check_labels(images: LabelSets, key: str) -> None:
    """Raise DatasetError for images of which nothing can be learnt, or that can judge nothing."""
    if not len(images):
        raise DatasetError(f"The table that {key} names has no images. Name another, or add images.")
    if not any(images.labels):
        raise DatasetError(f"None of the {len(images):,} images of {key} has a label. Add images that have.")
    if key == "data.train" and len(set(images.labels)) == 1:
        names = some([images.class_names[label] for label in images.labels[0]], quoted=True)
        raise DatasetError(
            f"All {len(images):,} training images have the same labels ({names}), so every answer would be right. Add "
            "images that have others, or none."
        )


def add_remarks_on_absent(images: LabelSets) -> None:
    """Add which classes no image has."""
    present = {label for labels in images.labels for label in labels}
    absent = [name for label, name in enumerate(images.class_names) if label not in present]
    if absent:
        images.remarks = [
            *images.remarks,
            f"No training image is of {some(absent, quoted=True)}: the model learns never to say so.",
        ]


def open_labelled(
    root: str,
    card: ModelCard,
    *,
    on_bad_image: OnBadImage = "error",
    image_column: str = "",
    label_column: str = "",
) -> ListedFiles:
    """The images of a table, prepared as the card says, with the card's class map.

    Raises DatasetError for what is no table, as `list_labels`, and where no image has a label.
    """
    if not is_table(root):
        raise DatasetError(
            f"{root} is no table (.csv, .tsv or .parquet), which the labels of images with several come from. Give one "
            "with a column of paths, and one of labels or one for each class."
        )
    remarks: list[str] = []
    data = MultilabelData(image_column=image_column, label_column=label_column)
    listing = list_labels(root, card.class_names, data=data, say=remarks.append)
    images = ListedFiles(listing, transform=EvalTransform(card.preprocessing), on_bad_image=on_bad_image)
    images.remarks = remarks
    check_labels(images, root)
    add_remarks_on_depth(images, card.preprocessing)
    return images
