"""A folder of class folders as a data set."""

import os
import random
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from hybridvit.data.decode import MAX_PIXELS
from hybridvit.data.images import BadImage, Images, Sample
from hybridvit.data.scan import Listing, scan_folder
from hybridvit.data.seeding import derive_seed, seeded
from hybridvit.data.transforms import Transform
from hybridvit.errors import ImageDecodeError

_MOST_REPLACEMENTS = 20  # in a row; a set this bad is refused long before


class ImageFolder(Images):
    """Images in root/<class>/**/*.jpg (or .png, ...), decoded and prepared by `transform`.

    Augmentation depends on (seed, epoch, sample) only, never on workers or order. A file that cannot be decoded is an
    error; with `on_bad_image="skip"` training shows another sample instead, drawn by (seed, epoch, sample), and
    evaluation leaves it out: never another picture under its name.

    `root` may be a listing, such as a part of one; else it raises `DatasetError` as `scan_folder` does, and
    `class_names` is the map of the training set, for evaluation.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | Listing,
        *,
        transform: Transform,
        class_names: Sequence[str] | None = None,
        training: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        listing = root if isinstance(root, Listing) else scan_folder(root, class_names)
        self.root = listing.root
        self.paths = listing.paths
        self.labels = listing.labels
        self.class_names = listing.class_names
        self.fingerprint = listing.fingerprint
        self.training = training
        self.tolerates_bad = on_bad_image == "skip"
        self._transform = transform
        self._seed = seed
        self._max_pixels = max_pixels

    def draw(self, epoch: int, index: int) -> Sample:
        bad: list[BadImage] = []
        dice = random.Random(derive_seed("replacement", self._seed, epoch, index))
        candidate = index
        for _ in range(_MOST_REPLACEMENTS):
            try:
                return Sample(self._pixels(epoch, candidate), self.labels[candidate], candidate, tuple(bad))
            except ImageDecodeError as error:
                bad.append(BadImage(self.paths[candidate], str(error)))
            if not (self.training and self.tolerates_bad):
                break
            candidate = dice.randrange(len(self))
        return Sample(None, self.labels[index], index, tuple(bad))

    def _pixels(self, epoch: int, index: int) -> Tensor:
        with seeded("augment", self._seed, epoch, index):
            return self._transform.of_file(self.paths[index], max_pixels=self._max_pixels)
