"""One interface over every runtime: a batch of images in, logits out, with the card that tells what they mean.

Arrays are NumPy's, so that a file for another runtime needs no torch to answer.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.measure.memory import enough_memory

if TYPE_CHECKING:
    from torch import Tensor, nn


class Runner(ABC):
    """A model ready to answer, whatever file it came from."""

    runtime: str  # "torch", "onnxruntime", "openvino"
    card: ModelCard
    image_shape: tuple[int, int, int] | None  # channels, height, width if the file fixes them
    range_px: tuple[int, int] | None = None  # smallest and largest side of an exported file that takes many sizes

    def __call__(self, images: "np.ndarray | Tensor") -> np.ndarray:
        """Logits (batch, classes) in fp32 for preprocessed images (batch, channels, height, width).

        Raises UsageError for a batch of another shape than the model takes.
        """
        batch = np.ascontiguousarray(images, dtype=np.float32)
        if batch.ndim != 4:
            raise UsageError(
                f"The input has shape {batch.shape}, but a batch has four axes: images, channels, height, width. "
                "Add the missing axis, e.g. image[None]."
            )
        if self.image_shape is not None and batch.shape[1:] != self.image_shape:
            channels, height, width = self.image_shape
            raise UsageError(
                f"The batch has shape {batch.shape}, but this {self.runtime} model takes (batch, {channels}, {height}, "
                f"{width}). Preprocess the images as runner.card.preprocessing says, or export the model again with "
                "another --image_size."
            )
        if self.range_px is not None:
            channels, (smallest, largest) = self.card.options.get("in_chans", 3), self.range_px
            if batch.shape[1] != channels or not all(smallest <= side <= largest for side in batch.shape[2:]):
                raise UsageError(
                    f"The batch has shape {batch.shape}, but this {self.runtime} model takes (batch, {channels}, "
                    f"height, width) with both sides from {smallest} to {largest} pixels. Resize the images, or export "
                    "the model again with another image_size or dynamic_size."
                )
        return self.run(batch)

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of a checked batch."""


class TorchRunner(Runner):
    """A PyTorch module, run in eval mode without gradients."""

    runtime = "torch"

    def __init__(self, model: "nn.Module", card: ModelCard, *, device: str = "cpu") -> None:
        self.model = model.eval().to(device)
        self.card = card
        self.image_shape = None
        self.device = device

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of a checked batch."""
        import torch

        with torch.inference_mode(), enough_memory(images.shape):
            return self.model(torch.from_numpy(images).to(self.device)).float().cpu().numpy()
