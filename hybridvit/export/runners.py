"""One interface over every runtime: a batch of images in, logits out, with the card that tells what they mean."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError


class Runner(ABC):
    """A model ready to answer, whatever file it came from."""

    runtime: str  # "torch", "onnxruntime"
    card: ModelCard

    def __call__(self, images: Tensor | np.ndarray) -> Tensor:
        """Logits (batch, classes), fp32 on the CPU, for preprocessed images (batch, channels, height, width).

        Raises UsageError for a batch of another shape than the model takes.
        """
        batch = torch.as_tensor(images, dtype=torch.float32)
        if batch.ndim != 4:
            raise UsageError(
                f"The input has shape {tuple(batch.shape)}, but a batch has four axes: images, channels, height, "
                "width. Add the missing axis, e.g. image[None]."
            )
        self.check_shape(tuple(batch.shape))
        return self.run(batch)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise UsageError for a batch shape that the runtime would refuse. By default the model decides."""

    @abstractmethod
    def run(self, images: Tensor) -> Tensor:
        """Logits of a checked batch."""


class TorchRunner(Runner):
    """A PyTorch module, run in eval mode without gradients."""

    runtime = "torch"

    def __init__(self, model: nn.Module, card: ModelCard, *, device: str | torch.device = "cpu") -> None:
        self.model = model.eval().to(device)
        self.card = card
        self.device = torch.device(device)

    @torch.inference_mode()
    def run(self, images: Tensor) -> Tensor:
        """Logits of a checked batch."""
        return self.model(images.to(self.device)).float().cpu()
