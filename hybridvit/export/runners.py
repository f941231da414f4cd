"""One interface over every runtime: a batch of images in, answers by name out, with the card that tells what they mean.

Arrays are NumPy's, so that a file for another runtime needs no torch to answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hybridvit.card import ModelCard
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export.bundle import read_card
from hybridvit.export.seal import NOTHING_ELSE, Trust, as_written, check_folder_seal, check_seal
from hybridvit.export.spec import OF_BACKBONE, GraphSpec
from hybridvit.machine.memory import enough_memory
from hybridvit.task import find_task

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_file(path: Path) -> bytes:
    """The content of an exported file. Raises CheckpointError where there is none."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. Check the path, or export one with `hybridvit export`.")
    return path.read_bytes()


Outputs = dict[str, np.ndarray]
"""The answers to a batch by name: "logits", or what a file was exported to give."""


BATCH = 16  # images that are computed at once if nothing else is said
PIXELS_AT_ONCE = 256 * 256  # where a larger batch makes a processor's caches too small for what is between two layers


class Runner(ABC):
    """A model ready to answer, whatever file it came from."""

    runtime: str  # "torch", "onnxruntime", "openvino" ...
    card: ModelCard
    callers: int = 1  # threads that may call it at once

    @property
    def usual_batch(self) -> int:
        """How many of a stream of images to give it at once if nothing else is said."""
        return BATCH

    @abstractmethod
    def __call__(self, images: "np.ndarray | Tensor") -> Outputs:
        """The outputs, in fp32, for images (batch, channels, height, width) preprocessed as the card says.

        Raises UsageError for a batch of another shape than the model takes.
        """


class ExportedRunner(Runner):
    """An exported file in its runtime. Subclasses open it, call `describe` with its metadata, and implement `run`."""

    takes_callers: ClassVar[bool] = False  # whether several threads may call it at once
    likes_small_batches: ClassVar[bool] = False  # up to PIXELS_AT_ONCE

    path: Path
    metadata: dict[str, str]
    spec: GraphSpec

    @property
    def usual_batch(self) -> int:
        """What the file was exported for; else what is fastest (benchmarks/predict_folder.py)."""
        if self.spec.batch is not None or not self.likes_small_batches:
            return self.spec.batch or BATCH
        height, width = self.spec.image_size
        return min(BATCH, max(1, PIXELS_AT_ONCE // (height * width)))

    @abstractmethod
    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        """Open `path` with so many threads, or as many as the runtime likes. Raises CheckpointError."""

    def describe(
        self, path: Path, metadata: Mapping[str, str], content: bytes | None = None, *, trust: Trust = NOTHING_ELSE
    ) -> None:
        """Read the card and the spec; `content` is that of the file, if it was sealed; a folder always is.

        Raises CheckpointError if `path` is not one of our files, or damaged.
        """
        self.path, self.metadata = path, dict(metadata)
        self.card, self.spec = read_card(self.metadata, path), GraphSpec.read(self.metadata, path)
        task = find_task(self.card.task)
        known = (task.returns, *task.also_returns, *OF_BACKBONE)
        if self.spec.returns not in known:
            raise CheckpointError(
                f"{path} is to return '{self.spec.returns[:40]}', but a file of the task '{self.card.task}' returns "
                f"{' or '.join(known)}: it was changed, or written by another version. Export it again."
            )
        with as_written(path, trust):
            if content is not None:
                check_seal(content, self.metadata, path)
            elif path.is_dir():
                check_folder_seal(path, self.metadata)

    @abstractmethod
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs, in order, of a checked batch as the graph takes it (dtype, layout, and batch size if fixed)."""

    def __call__(self, images: "np.ndarray | Tensor") -> Outputs:
        spec = self.spec
        floats = np.asarray(images, dtype=np.float32)
        self._check(floats)
        batch: np.ndarray = floats
        if spec.pixels == "uint8":
            batch = np.rint(floats).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)  # b h w c
        batch = np.ascontiguousarray(batch)
        outputs = self.run(batch) if spec.batch in (None, len(batch)) else self._in_parts(batch, spec.batch)
        outputs = [each if each.dtype.kind in "iu" else each.astype(np.float32, copy=False) for each in outputs]
        return dict(zip(spec.outputs, outputs, strict=True))

    def _in_parts(self, batch: np.ndarray, size: int) -> list[np.ndarray]:
        """A batch in parts of the one size that the file takes; zeros fill the last, and their answers are cut off."""
        missing = -len(batch) % size
        padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch
        parts = [self.run(padded[start : start + size]) for start in range(0, len(padded), size)]
        return [np.concatenate(each)[: len(batch)] for each in zip(*parts, strict=True)]

    def _check(self, batch: np.ndarray) -> None:
        spec = self.spec
        if batch.ndim != 4:
            raise UsageError(
                f"The input has shape {batch.shape}, but a batch has four axes: images, channels, height, width. "
                "Add the missing axis, e.g. image[None]."
            )
        (channels, *sides), sizes = batch.shape[1:], spec.sizes
        if spec.range_px is not None:
            smallest, largest = spec.range_px
            takes = f"height, width) with both sides from {smallest} to {largest} pixels"
            fix = "Resize the images, or export the model again with another image_size or dynamic_size."
        else:
            takes = " or ".join(f"{height}, {width})" for height, width in sizes)
            fix = (
                "Preprocess the images as runner.card.preprocessing says, or export the model again with another "
                "--image_size."
            )
        if channels != spec.channels or not spec.takes_size((sides[0], sides[1])):
            raise UsageError(
                f"The batch has shape {batch.shape}, but this {self.runtime} model takes (batch, {spec.channels}, "
                f"{takes}. {fix}"
            )


class TorchRunner(Runner):
    """A PyTorch module, run in eval mode without gradients."""

    runtime = "torch"

    def __init__(self, model: "nn.Module", card: ModelCard, *, device: str = "cpu") -> None:
        self.model = model.eval().to(device)
        self.card = card
        self.device = device
        self._task = find_task(card.task)

    def __call__(self, images: "np.ndarray | Tensor") -> Outputs:
        """The model itself refuses a batch of another shape than it takes, with UsageError."""
        import torch

        batch = np.ascontiguousarray(images, dtype=np.float32)
        with torch.inference_mode(), enough_memory(batch.shape):
            outputs = self._task.forward(self.model, torch.from_numpy(batch).to(self.device))
        return {name: output.cpu().numpy() for name, output in outputs.items()}
