"""Models that take pixels as they are decoded: the preprocessing folded into the first convolution."""

import copy
import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import UsageError, plural
from hybridvit.folding.kernel import Kernel, exact
from hybridvit.models.whole import WholeModel


@torch.no_grad()
def fold_preprocessing(model: WholeModel, *, pixel_max: float = 255.0) -> WholeModel:
    """A copy of a folded model that takes raw pixels, 0 to `pixel_max`, as they come from the decoder.

    The division by the standard deviation goes into the first convolution. The mean is still subtracted, from the
    image itself: the zero padding of the stem then stands for a pixel of mean colour, as in the original.

    Raises:
        UsageError: if it is no folded whole model, if this was done before, if its backbone is one of timm, or if its
            card has another number of channels than the model.
    """
    if not isinstance(model, WholeModel):
        raise UsageError(f"A {type(model).__name__} is not a whole model; give one from create_model or load, folded.")
    card = model.card
    if not model.first_conv:
        raise UsageError(
            f"The first layer of {card.architecture}, a model of timm, is not known, so its preprocessing cannot be "
            "folded in. Give it normalised images, or choose a backbone of this package."
        )
    conv = model.get_submodule(model.first_conv)
    if card.form != "folded":
        raise UsageError(f"The form of this {card.architecture} is '{card.form}', but must be 'folded': fold it first.")
    mean, std = (
        torch.tensor(values, dtype=torch.float64) for values in (card.preprocessing.mean, card.preprocessing.std)
    )
    if len(mean) != model.in_chans:
        raise UsageError(
            f"The preprocessing has {plural(len(mean), 'channel mean')}, but {card.architecture} has "
            f"{plural(model.in_chans, 'channel')}. Give the card a mean and std per channel."
        )
    if not isinstance(conv, nn.Conv2d):
        raise UsageError(f"This {card.architecture} takes raw pixels already: its preprocessing has been folded in.")
    assert conv.bias is not None  # as in every folded model
    weight = exact(conv.weight)
    weight = weight / (std.to(weight) * pixel_max)[:, None, None]
    raw = copy.deepcopy(model)
    raw.set_submodule(raw.first_conv, RawPixelConv(Kernel(weight, exact(conv.bias)), conv, mean * pixel_max))
    preprocessing = dataclasses.replace(
        card.preprocessing, mean=(0.0,) * len(mean), std=(pixel_max**-1 if pixel_max != 1 else 1.0,) * len(mean)
    )
    raw.card = dataclasses.replace(card, preprocessing=preprocessing)
    return raw


class RawPixelConv(nn.Module):
    """A convolution on images from which the mean colour is subtracted first; uint8 images are fine."""

    def __init__(self, kernel: Kernel, like: nn.Conv2d, mean: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.conv, folded = copy.deepcopy(like), kernel.cast(like.weight)  # a copy: its padding may be of its own kind
        self.conv.weight = nn.Parameter(folded.weight, requires_grad=False)
        self.conv.bias = nn.Parameter(folded.bias, requires_grad=False)
        self.mean = nn.Parameter(mean.to(like.weight)[:, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.mean.dtype) - self.mean)
