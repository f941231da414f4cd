"""The model as it was given to an export: what the written file is compared with, on what it is compared."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hybridvit.export.graph import given_by
from hybridvit.export.parity import batches, normalised, pictures
from hybridvit.export.spec import GraphSpec
from hybridvit.models.whole import WholeModel

MOST_AT_ONCE = 64


class Original:
    """A model in eval mode that answers in fp32 to what a file with the ends `spec` is given."""

    def __init__(self, model: WholeModel, spec: GraphSpec) -> None:
        self.model, self.spec = model, spec
        preprocessing = model.card.preprocessing
        self.mean, self.std = (
            np.asarray(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
        )

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        """The outputs in order for a batch as the runner takes it; all logits where the file gives the best alone.

        Raises UsageError for a size that the model does not take.
        """
        if self.spec.pixels == "uint8":
            batch = (batch / 255 - self.mean) / self.std
        images = torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(next(self.model.parameters()).device)
        with torch.inference_mode():
            made = given_by(self.model, self.spec, images)
        return [each.cpu().numpy() for each in made]

    def given(self, images: np.ndarray) -> np.ndarray:
        """Preprocessed images (... c h w) as the runner takes them: with uint8 pixels levels from 0 to 255 again."""
        return np.rint((images * self.std + self.mean) * 255) if self.spec.pixels == "uint8" else images

    def examples(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Batches as the graph takes them: drawn pictures, and `images` (c, h, w) if there are any."""
        drawn = pictures(2, self.spec.channels, self.spec.image_size, np.random.default_rng(0))
        shown = [normalised(drawn, self.model.card.preprocessing), *batches(images, MOST_AT_ONCE)]
        tensors = [torch.from_numpy(self.given(batch)) for batch in shown]
        if self.spec.pixels == "uint8":
            return [tensor.to(torch.uint8).permute(0, 2, 3, 1) for tensor in tensors]  # b h w c
        return tensors
