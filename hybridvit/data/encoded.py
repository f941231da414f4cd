"""What all sets of image files share, wherever the bytes come from: decoding, augmentation by seed, and bad files."""

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Required, TypedDict, Unpack

from torch import Tensor

from hybridvit.batch import BadImage, Frame, Sample
from hybridvit.data.decode import MAX_PIXELS, Changed, ImageSource
from hybridvit.data.pixels import Pixels
from hybridvit.data.samples import LabelledImages, Samples
from hybridvit.data.seeding import derive_seed, seeded, side_of_step
from hybridvit.data.transforms import Transform
from hybridvit.errors import ImageDecodeError, SourceFault

OnBadImage = Literal["error", "skip"]
_MOST_REPLACEMENTS = 20  # in a row; a set this bad is refused long before


class DrawOptions(TypedDict, total=False):
    """How samples are drawn from their files, whatever the source."""

    training: bool
    on_bad_image: OnBadImage
    seed: int
    max_pixels: int  # of an image; larger ones are refused


class ImageOptions(DrawOptions, total=False):
    """The same of labelled images."""

    transform: Required[Transform]
    sizes: Sequence[int]  # sides in pixels, of which each step takes one


class ListedImages(ImageOptions):
    """With which images these are."""

    paths: Sequence[str]
    class_names: Sequence[str]
    fingerprint: str


class EncodedSamples(Samples):
    """Image files, decoded and prepared; a source says where the bytes of each one are, a task what is true of it.

    Augmentation depends on (seed, epoch, sample) only, never on workers or order. A file that cannot be decoded is an
    error; with `on_bad_image="skip"` training shows another sample instead, drawn by (seed, epoch, sample), and
    evaluation leaves it out: never another picture under its name.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        fingerprint: str,
        training: bool = False,
        on_bad_image: OnBadImage = "error",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.paths = paths
        self.fingerprint = fingerprint
        self.training = training
        self.tolerates_bad = on_bad_image == "skip"
        self._seed = seed
        self._max_pixels = max_pixels

    @abstractmethod
    def encoded(self, epoch: int, index: int) -> str | bytes:
        """The path of a file on this machine, or the bytes of one; `epoch` tells what may be wanted next.

        Raises `SourceFault` if they cannot be had.
        """

    @abstractmethod
    def prepared(self, source: ImageSource, index: int, step: int) -> tuple[Tensor | Pixels, Any, Frame | None]:
        """Image, target and frame of sample `index`, whose file or bytes are `source`; the generators are seeded.

        Raises `ImageDecodeError`.
        """

    def stand_ins(self, index: int) -> range:
        """The samples of which one may be shown in place of sample `index`."""
        return range(len(self))

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        bad: list[BadImage] = []
        dice: random.Random | None = None
        candidate = index
        for _ in range(_MOST_REPLACEMENTS):
            try:
                image, target, frame = self._prepared(epoch, candidate, step)
                values, patch = image if isinstance(image, Pixels) else (image, None)
                return Sample(values, target, candidate, frame, tuple(bad), patch=patch)
            except ImageDecodeError as error:
                bad.append(BadImage(self.paths[candidate], str(error)))
            except SourceFault as fault:
                return Sample(None, None, index, fault=str(fault))
            if not (self.training and self.tolerates_bad):
                break
            dice = dice or random.Random(derive_seed("replacement", self._seed, epoch, index))
            candidate = dice.choice(self.stand_ins(index))
        return Sample(None, None, index, bad=tuple(bad))

    def _prepared(self, epoch: int, index: int, step: int) -> tuple[Tensor | Pixels, Any, Frame | None]:
        source = self.encoded(epoch, index)
        try:
            with seeded("augment", self._seed, epoch, index):
                if self.change is None:
                    return self.prepared(source, index, step)
                return self.prepared(Changed(source, self.change, self.paths[index]), index, step)
        except ImageDecodeError as error:
            if isinstance(source, bytes):
                raise ImageDecodeError(f"{self.paths[index]}, {error}") from error
            raise


class TransformedImages(EncodedSamples):
    """Image files with something that is true of each whole image, prepared by `transform`.

    With `sizes` each step has one of these sides.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        class_names: Sequence[str],
        fingerprint: str,
        transform: Transform,
        sizes: Sequence[int] = (),
        **options: Unpack[DrawOptions],
    ) -> None:
        super().__init__(paths=paths, fingerprint=fingerprint, **options)
        self.class_names = tuple(class_names)
        self._transform, self._sizes = transform, tuple(sizes)
        self.normalisation = transform.normalisation

    @abstractmethod
    def target(self, index: int) -> Any:
        """What is true of image `index`."""

    def prepared(self, source: ImageSource, index: int, step: int) -> tuple[Pixels, Any, None]:
        side = side_of_step(self._sizes, self._seed, step)
        image = self._transform.pixels_of_file(source, max_pixels=self._max_pixels, side=side)
        return image, self.target(index), None


class EncodedImages(TransformedImages, LabelledImages):
    """Image files with one label each."""

    def __init__(self, *, labels: Sequence[int], **options: Unpack[ListedImages]) -> None:
        super().__init__(**options)
        self.labels = labels

    def target(self, index: int) -> int:
        return self.labels[index]
