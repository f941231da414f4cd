"""What all sets of image files share, wherever the bytes come from: decoding, augmentation by seed, and bad files."""

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from hybridvit.data.decode import MAX_PIXELS
from hybridvit.data.images import BadImage, Images, Sample, SourceFault
from hybridvit.data.seeding import derive_seed, seeded
from hybridvit.data.transforms import Transform
from hybridvit.errors import ImageDecodeError

OnBadImage = Literal["error", "skip"]
_MOST_REPLACEMENTS = 20  # in a row; a set this bad is refused long before


class EncodedImages(Images):
    """Labelled image files, decoded and prepared by `transform`; a source says where the bytes of each one are.

    Augmentation depends on (seed, epoch, sample) only, never on workers or order. A file that cannot be decoded is an
    error; with `on_bad_image="skip"` training shows another sample instead, drawn by (seed, epoch, sample), and
    evaluation leaves it out: never another picture under its name.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        labels: Sequence[int],
        class_names: Sequence[str],
        fingerprint: str,
        transform: Transform,
        training: bool = False,
        on_bad_image: OnBadImage = "error",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.class_names = tuple(class_names)
        self.fingerprint = fingerprint
        self.training = training
        self.tolerates_bad = on_bad_image == "skip"
        self._transform = transform
        self._seed = seed
        self._max_pixels = max_pixels

    @abstractmethod
    def encoded(self, epoch: int, index: int) -> str | bytes:
        """The path of a file on this machine, or the bytes of one; `epoch` tells what may be wanted next.

        Raises `SourceFault` if they cannot be had.
        """

    def stand_ins(self, index: int) -> range:
        """The samples of which one may be shown in place of sample `index`."""
        return range(len(self))

    def draw(self, epoch: int, index: int) -> Sample:
        bad: list[BadImage] = []
        dice: random.Random | None = None
        candidate = index
        for _ in range(_MOST_REPLACEMENTS):
            try:
                return Sample(self._pixels(epoch, candidate), self.labels[candidate], candidate, tuple(bad))
            except ImageDecodeError as error:
                bad.append(BadImage(self.paths[candidate], str(error)))
            except SourceFault as fault:
                return Sample(None, self.labels[index], index, fault=str(fault))
            if not (self.training and self.tolerates_bad):
                break
            dice = dice or random.Random(derive_seed("replacement", self._seed, epoch, index))
            candidate = dice.choice(self.stand_ins(index))
        return Sample(None, self.labels[index], index, tuple(bad))

    def _pixels(self, epoch: int, index: int) -> Tensor:
        source = self.encoded(epoch, index)
        try:
            with seeded("augment", self._seed, epoch, index):
                return self._transform.of_file(source, max_pixels=self._max_pixels)
        except ImageDecodeError as error:
            if isinstance(source, bytes):
                raise ImageDecodeError(f"{self.paths[index]}, {error}") from error
            raise
