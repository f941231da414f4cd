"""What training and evaluation need of a set of images, wherever its pixels come from."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from hybridvit.data.order import Blocks
from hybridvit.errors import DatasetError, ImageDecodeError


class SourceFault(DatasetError):
    """The place that the images are in cannot be read; no fault of a single image, and never skipped."""


class BadImage(NamedTuple):
    """A file that could not be decoded, and the message that says why."""

    path: str
    message: str


class Sample(NamedTuple):
    """One draw. `bad` lists the files that failed on the way; `image` is None if nothing came in their place."""

    image: Tensor | None  # c h w
    label: int
    number: int  # of the sample that is shown, which is not the one asked for if it stands in for a bad file
    bad: tuple[BadImage, ...] = ()
    fault: str = ""  # why the source could not be read: the end of the run, whatever is tolerated


class Images(Dataset[tuple[Tensor, int]]):
    """Labelled images. Failures are returned, not raised, by `draw`: they have to cross process borders whole."""

    paths: Sequence[str]  # of a large set made when asked for
    labels: Sequence[int]  # index into class_names
    class_names: tuple[str, ...]
    fingerprint: str
    """Changes when the set does; recorded with a run, and compared when it is resumed."""
    tolerates_bad: bool = False
    """Whether a bad file is left out (and counted) rather than the end of the run."""
    training: bool = False
    blocks: Blocks | None = None
    """How the set is cut into parts that are cheaper to read one after the other; None: any order costs the same."""

    @abstractmethod
    def draw(self, epoch: int, index: int) -> Sample:
        """Sample `index` as epoch `epoch` shows it: equal arguments give equal pixels, in any process."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (c h w) and label as epoch 0 shows them. Raises `ImageDecodeError`, `SourceFault`, `IndexError`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample = self.draw(0, index % len(self))
        if sample.fault:
            raise SourceFault(sample.fault)
        if sample.image is None:
            raise ImageDecodeError(sample.bad[0].message)
        return sample.image, sample.label

    def __len__(self) -> int:
        return len(self.labels)
