"""What a deployment target has to be able to do. One file per target implements it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hybridvit.errors import UsageError
from hybridvit.export.runners import Runner

if TYPE_CHECKING:
    from torch import Tensor, nn


class Exporter(ABC):
    """Converts a folded model to a file of another runtime and runs that file."""

    target: str  # as given to --to
    suffix: str  # of the file that is opened
    companions: tuple[str, ...] = ()  # suffixes of the files that belong beside it
    writer_packages: tuple[str, ...]  # import names needed to convert
    runner_packages: tuple[str, ...]  # import names needed to run
    extra: str  # the extra of hybridvit that installs both

    @abstractmethod
    def convert(
        self, model: "nn.Module", example: "Tensor", path: Path, *, range_px: tuple[int, int] | None = None
    ) -> None:
        """Write `model` (folded, eval) to `path` with a dynamic batch; `example` is a batch of two images.

        With `range_px` height and width are dynamic too, each from the smallest to the largest side. Raises ExportError
        if the model cannot be converted.
        """

    @abstractmethod
    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put `metadata` into the file at `path`."""

    @abstractmethod
    def load_runner(self, path: Path, *, threads: int | None = None) -> Runner:
        """Open a file of this target. Raises CheckpointError if it is damaged or not ours."""

    def require(self, packages: tuple[str, ...]) -> None:
        """Raise UsageError naming the extra to install if one of `packages` is missing."""
        missing = [name for name in packages if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"The target '{self.target}' needs {' and '.join(missing)}, missing here. "
                f'Run: pip install "hybridvit[{self.extra}]"'
            )
