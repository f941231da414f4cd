"""How far the centre of a feature map sees in practice: the effective receptive field (Luo et al., 2016)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hybridvit.errors import UsageError
from hybridvit.models.backbone import Backbone

SHARES = (0.2, 0.3, 0.5, 0.99)


@dataclass(frozen=True, kw_only=True)
class Field:
    """What of the picture the centre of a map depends on."""

    gradient: Float[Tensor, "h w"]  # summed over images and colours
    num_images: int

    def side_px(self, share: float) -> int:
        """Side of the smallest centred square with that share of the gradient (Ding et al., 2022)."""
        height, width = self.gradient.shape
        total = self.gradient.sum()
        for radius in range(max(height, width)):
            square = self.gradient[
                max(height // 2 - radius, 0) : height // 2 + radius + 1,
                max(width // 2 - radius, 0) : width // 2 + radius + 1,
            ]
            if square.sum() >= share * total:
                return min(2 * radius + 1, max(height, width))
        return max(height, width)

    @property
    def picture(self) -> Float[Tensor, "h w"]:
        """log10(1 + gradient / median of the positive), to a largest value of 1."""
        positive = self.gradient[self.gradient > 0]
        if not len(positive):
            return torch.zeros_like(self.gradient)
        scaled = (1 + self.gradient / positive.median()).log10()
        return scaled / scaled.max()


def receptive_field(model: Backbone, images: Float[Tensor, "b c h w"], *, stage: int | None = None) -> Field:
    """The positive gradient of the positive activations at the centre of a map, with respect to the picture.

    `stage`, from 1, chooses the map of a stage; the last map is the default.

    Raises:
        UsageError: for a stage that there is not, or no images.
    """
    if stage is not None and not 1 <= stage <= len(model.stages):
        raise UsageError(f"The stage is {stage}, but the model has {len(model.stages)}: use 1 to {len(model.stages)}.")
    if not len(images):
        raise UsageError("There is no image to compute a receptive field of. Give one or more.")
    total = torch.zeros(images.shape[-2:], dtype=torch.float64)
    for image in images.split(1):
        with torch.enable_grad():
            leaf = image.detach().clone().requires_grad_()
            if stage is None:
                features = model.forward_features(leaf)
            else:
                (features,) = model.forward_intermediates(
                    leaf, indices=[stage - 1], stop_early=True, intermediates_only=True
                )
            height, width = features.shape[-2:]
            (gradient,) = torch.autograd.grad(features[0, :, height // 2, width // 2].relu().sum(), leaf)
        total += gradient[0].relu().sum(0).cpu().double()
    return Field(gradient=total, num_images=len(images))
