"""A folder of class folders as a data set."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from hybridvit.data.encoded import EncodedImages, ImageOptions
from hybridvit.data.listing import Label, Listing, scan_folder
from hybridvit.data.samples import Opened
from hybridvit.data.scan import Say, quiet, subfolders
from hybridvit.errors import DatasetError, some

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig


class ImageFolder(EncodedImages):
    """Images in root/<class>/**/*.jpg (or .png, ...); see `EncodedImages` for what becomes of them.

    `root` may be a listing, such as a part of one; else it raises `DatasetError` as `scan_folder` does, whose words are
    `remarks`, and `class_names` is the map of the training set, for evaluation.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | Listing[int],
        *,
        class_names: Sequence[str] | None = None,
        **options: Unpack[ImageOptions],
    ) -> None:
        remarks: list[str] = []
        listing = root if isinstance(root, Listing) else scan_folder(root, class_names, say=remarks.append)
        self.remarks = remarks
        self.root = listing.root
        super().__init__(
            paths=listing.paths,
            labels=listing.labels,
            class_names=listing.class_names,
            fingerprint=listing.fingerprint,
            **options,
        )

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]


def open_folders(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """The images in data.root. Raises `DatasetError` as `list_images`."""
    return opened(list_images, data, train, validation)


def opened(
    lists: Callable[..., tuple[Listing[int], Listing[int]]],
    data: "DataConfig",
    train: ImageOptions,
    validation: ImageOptions,
) -> Opened:
    """The images that `lists(data, say=...)` finds to train and to validate on, with what it says of them."""
    remarks: list[str] = []
    listing, rest = lists(data, say=remarks.append)
    images = ImageFolder(listing, **train)
    images.remarks = remarks
    return images, ImageFolder(rest, **validation)


def held_out(
    listing: Listing[Label], data: "DataConfig", *, unused: Path | None, say: Say
) -> tuple[Listing[Label], Listing[Label]] | None:
    """The listing in two, to train and to validate on, where the recipe asks for that; else None.

    `say` is told of `unused`, which is there to validate on.
    """
    key = "val_share" if data.val_share else "fold"
    if not (value := getattr(data, key)):
        return None
    if unused is not None:
        say(
            f"data.{key} is {value}, so that part of '{data.train}' is validated on, and the images in {unused} are "
            f"not used. Leave {key} out to validate on them."
        )
    if key == "val_share":
        return listing.split(data.val_share, say=say)
    part, count = map(int, data.fold.split("/"))
    return listing.fold(part, count)


def list_images(data: "DataConfig", *, say: Say = quiet) -> tuple[Listing[int], Listing[int]]:
    """The training and the validation images below data.root, with one class map, that of the training images.

    `say` is told of what is left out. Raises DatasetError where a folder is missing, with the keys that would name it,
    or as `scan_folder`.
    """
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise DatasetError(f"data.root is {root}, which is no folder. Check the path.")
    there = some(subfolders(str(root)), quoted=True) or "none"
    if not (root / data.train).is_dir():
        raise DatasetError(
            f"{root} has no folder '{data.train}' for the images to train on; its folders are: {there}. Name one with "
            "--data.train, or, if these are the classes, use --data.train . --data.val_share 0.2."
        )
    listing = scan_folder(root / data.train, say=say)
    is_there = (root / data.val).is_dir() and data.val != data.train and root / data.train != root
    if parts := held_out(listing, data, unused=root / data.val if is_there else None, say=say):
        return parts
    if not (root / data.val).is_dir():
        raise DatasetError(
            f"{root} has no folder '{data.val}' for the images to validate on; its folders are: {there}. Name one with "
            "--data.val, or hold out a fifth of the training images with --data.val_share 0.2."
        )
    return listing, scan_folder(root / data.val, listing.class_names, say=say)
