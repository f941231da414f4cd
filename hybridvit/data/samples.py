"""What training and evaluation need of a set of samples, wherever they come from."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hybridvit.batch import Sample
from hybridvit.data.decode import ImageChange
from hybridvit.data.order import Blocks
from hybridvit.data.pixels import Normalisation, Pixels
from hybridvit.errors import ImageDecodeError, SourceFault


class Samples(Dataset[tuple[Tensor, Any]]):
    """Images with what is true of them. Failures are returned, not raised, by `draw`: they cross processes whole."""

    paths: Sequence[str]  # of a large set made when asked for
    class_names: tuple[str, ...] = ()  # empty where the targets are no classes
    fingerprint: str
    """Changes when the set does; recorded with a run, and compared when it is resumed."""
    remarks: Sequence[str] = ()
    """What its user is told before it is used: files that were left out, classes that cannot be held out."""
    tolerates_bad: bool = False
    """Whether a bad file is left out (and counted) rather than the end of the run."""
    training: bool = False
    sizes_differ: bool = False
    """Whether images of the set have sizes of their own. A batch of several is then padded, and padding is seen by a
    model: what is evaluated comes one by one."""
    normalisation: Normalisation | None = None
    """What makes numbers of images that are drawn as bytes."""
    blocks: Blocks | None = None
    """How the set is cut into parts that are cheaper to read one after the other; None: any order costs the same."""

    balanced_labels: Sequence[int] | None = None
    """Of training samples, classes that an epoch shows equally often; None: each sample comes once."""

    change: ImageChange | None = None
    """What is done to every decoded picture before it is prepared; the targets stay as they are."""

    @abstractmethod
    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        """Sample `index` as epoch `epoch` shows it in optimizer step `step`, on which the size of the image may depend.

        Equal arguments give equal pixels, in any process. An image of bytes is yet to be normalised, by
        `normalisation`.
        """

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """Image (c h w) and target as epoch 0 shows them. Raises `ImageDecodeError`, `SourceFault`, `IndexError`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample = self.draw(0, index % len(self))
        if sample.fault:
            raise SourceFault(sample.fault)
        if sample.image is None:
            raise ImageDecodeError(sample.bad[0].message)
        if self.normalisation is not None and sample.image.dtype == torch.uint8:
            return self.normalisation.of(Pixels(sample.image, sample.patch)), sample.target
        return sample.image, sample.target

    def __len__(self) -> int:
        return len(self.paths)


class LabelledImages(Samples):
    """Images of which each belongs to one class."""

    labels: Sequence[int]  # index into class_names

    def __len__(self) -> int:
        return len(self.labels)


Opened = tuple[LabelledImages, LabelledImages]
"""What the opener of a source gives: images to train and to validate on."""
