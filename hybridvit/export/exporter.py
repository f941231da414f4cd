"""What a deployment target has to be able to do. One file per target, in `targets/`, implements it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.errors import UsageError, nearest, one_line
from hybridvit.export.quiet import quiet
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import NOTHING_ELSE, Trust, seal
from hybridvit.export.spec import Precision

if TYPE_CHECKING:
    from torch import Tensor

    from hybridvit.export.graph import DeployedModel

LIMITS: dict[Precision, float] = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}
"""Largest difference from PyTorch in fp32, relative to the largest output. int8 is judged by its accuracy."""


@dataclass(frozen=True)
class Quantisation:
    """What an int8 conversion is given."""

    images: "Tensor"  # to calibrate on, as the graph takes them
    kept: tuple[str, ...] = ()  # names of modules inside the deployed model that keep floating point

    def check_names(self, model: "DeployedModel") -> None:
        """Raise UsageError if a kept name is no module of `model`."""
        known = dict(model.named_modules())
        for name in self.kept:
            if name not in known:
                raise UsageError(
                    f"'{name}' is to keep floating point, but this model has no module of that name. "
                    f"{nearest(name, known)}."
                )

    def batches(self, size: int, *, only_whole: bool = True) -> list[np.ndarray]:
        """The images, so many at a time; the first ones come again where they do not fill the last of whole batches."""
        images = self.images.numpy()
        if only_whole:
            images = images[np.arange(-(-len(images) // size) * size) % len(images)]
        return [images[start : start + size] for start in range(0, len(images), size)]


@dataclass(frozen=True, kw_only=True)
class WeightCheck:
    """What was compared of a file that does not run on this machine."""

    reason: str  # why it does not run here
    num_tensors: int  # weights that were found inside and compared
    max_error: float  # largest difference of one / largest weight of its tensor


class Exporter(ABC):
    """Converts a folded model to a file of another runtime and runs that file."""

    target: str  # as given to --to
    title: str  # of what runs its files, in charts and tables
    runtime = ""  # as `bench` names it; "" where it has nothing to time on a machine like this
    suffix: str  # of the file that is opened
    record = ""  # where it is a folder: the file inside that holds the metadata
    runner: type[ExportedRunner]  # opens it
    device = "cpu"  # that its files compute on
    takes_threads = True  # whether its runtime can be told how many threads to use
    writer_packages: tuple[str, ...]  # import names needed to convert
    runner_packages: tuple[str, ...]  # import names needed to run
    extra: str  # the extra of hybridvit that installs both
    rewrites: tuple[str, ...] = ()  # "module:function", exact ones of the folded model that its runtime gains from
    precisions: tuple[Precision, ...] = ("fp32",)
    limits: Mapping[Precision, float] = LIMITS
    takes_dynamic_batch = True
    takes_dynamic_size = True
    of_one_size: tuple[Precision, ...] = ()  # whose files take any size only where that is asked for
    takes_several_sizes = False
    takes_lists = False  # whether its runtime has what lists of objects need: top-k, pooled regions, suppressed boxes
    default_batch: int | None = None
    opsets: Sequence[int] = ()  # that can be asked for, of ONNX

    @abstractmethod
    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write `model` (fp32, eval) to `path` as its spec says; `quantisation` is there for int8 and only then.

        Raises ExportError if the model cannot be converted.
        """

    @abstractmethod
    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put `metadata` into the file at `path`, in place of what it holds under the same names."""

    def seal(self, path: Path) -> None:
        """Close the open `hybridvit.sha256` of an annotated file, so that damage is noticed when it is opened."""
        seal(path, path / self.record)

    def load_runner(self, path: Path, *, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> ExportedRunner:
        """Open a file of this target; `threads` has no effect where the runtime counts its own (`takes_threads`).

        Raises CheckpointError if it is damaged or not ours, UsageError where its runtime is missing.
        """
        self.import_packages(self.runner_packages)
        return self.runner(path, threads, trust)

    def floating_layers(self, model: "DeployedModel") -> tuple[str, ...]:
        """Names of the layers inside `model` that `convert` leaves in floating point by a rule of this target."""
        return ()

    def companions(self, path: Path) -> Sequence[Path]:
        """The files that are written beside `path` and belong to it."""
        return ()

    def why_not_here(self) -> str:
        """Why files of this target cannot run on this machine; "" if they can."""
        return ""

    def load_to_prove(self, path: Path) -> ExportedRunner:
        """What answers for a written file in its proof: its runtime, or where that cannot be, another reading of it."""
        return self.load_runner(path)

    def check_weights(self, model: "DeployedModel", path: Path) -> WeightCheck | None:
        """For a target that does not run here: the weights in `path` against those of `model`."""
        return None

    @property
    def packages(self) -> tuple[str, ...]:
        """Import names of all that is needed to convert and to run."""
        return (*self.writer_packages, *self.runner_packages)

    def require(self, packages: tuple[str, ...]) -> None:
        """Raise UsageError naming the extra to install if one of `packages` is missing."""
        missing = [name for name in packages if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"The target '{self.target}' needs {' and '.join(missing)}, missing here. {self.how_to_install()}"
            )

    def import_packages(self, packages: tuple[str, ...]) -> None:
        """Import `packages` here. Raises UsageError if one is missing, or broken as `hybridvit doctor` would say."""
        self.require(packages)
        for name in packages:
            try:
                with quiet():
                    import_module(name)
            except Exception as error:
                raise UsageError(
                    f"The target '{self.target}' needs {name}, which is broken here ({type(error).__name__}: "
                    f"{one_line(error)}), as happens when a package that it needs is of another version. `hybridvit "
                    f"doctor` tells which packages work. {self.how_to_install()}"
                ) from error

    def how_to_install(self) -> str:
        """What to run for its packages."""
        return f'Run: pip install "hybridvit[{self.extra}]"'
