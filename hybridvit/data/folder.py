"""A folder of class folders as a data set."""

import os
from collections.abc import Sequence

from hybridvit.data.decode import MAX_PIXELS
from hybridvit.data.encoded import EncodedImages, OnBadImage
from hybridvit.data.scan import Listing, scan_folder
from hybridvit.data.transforms import Transform


class ImageFolder(EncodedImages):
    """Images in root/<class>/**/*.jpg (or .png, ...); see `EncodedImages` for what becomes of them.

    `root` may be a listing, such as a part of one; else it raises `DatasetError` as `scan_folder` does, and
    `class_names` is the map of the training set, for evaluation.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | Listing,
        *,
        transform: Transform,
        sizes: Sequence[int] = (),
        class_names: Sequence[str] | None = None,
        training: bool = False,
        on_bad_image: OnBadImage = "error",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        listing = root if isinstance(root, Listing) else scan_folder(root, class_names)
        self.root = listing.root
        super().__init__(
            paths=listing.paths,
            labels=listing.labels,
            class_names=listing.class_names,
            fingerprint=listing.fingerprint,
            transform=transform,
            sizes=sizes,
            training=training,
            on_bad_image=on_bad_image,
            seed=seed,
            max_pixels=max_pixels,
        )

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]
