"""The settings of training-time augmentation. Plain data, so that a recipe can be read without importing torch."""

import re
from dataclasses import dataclass
from typing import Literal

from hybridvit.errors import UsageError

_RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training does to an image; the defaults are FastViT's on ImageNet-1k (supplement, Table 5).

    Raises `UsageError` for a value outside its range.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Random resized crop: smallest and largest share of the image's area that is kept."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Random resized crop: smallest and largest width / height of the part that is kept."""
    hflip: float = 0.5
    """Probability of a left-right flip; 0 where that changes the meaning (digits, text)."""
    vflip: float = 0.0
    """Probability of an up-down flip."""
    color_jitter: float = 0.4
    """Strength of brightness, contrast and saturation jitter. Used only where `rand_augment` is empty: RandAugment has
    colour operations of its own and takes its place, as in the published runs."""
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    """RandAugment in timm's notation (m: magnitude, n: operations per image, mstd: spread of m, inc: 1 where every
    operation grows with m); empty switches it off."""
    random_erasing: float = 0.25
    """Probability of erasing one rectangle."""
    erasing_fill: Literal["const", "rand", "pixel"] = "pixel"
    """An erased rectangle becomes zero, one random colour, or noise."""
    mixup: float = 0.8
    """Alpha of mixup's Beta distribution; 0 switches mixup off."""
    cutmix: float = 1.0
    """Alpha of CutMix's Beta distribution; 0 switches CutMix off."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed at all, if mixup or CutMix is on."""
    cutmix_share: float = 0.5
    """Where both are on: the share of mixed batches that gets CutMix; the rest gets mixup."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UsageError(
                f"augment.scale is {list(self.scale)}, but a crop keeps between 0 and 1 of the image's area, smallest "
                "first. Use for example [0.08, 1.0]."
            )
        low, high = self.ratio
        if not 0 < low <= high:
            raise UsageError(
                f"augment.ratio is {list(self.ratio)}, but width / height must be above 0, smallest first. "
                "Use for example [0.75, 1.3333]."
            )
        shares = ("hflip", "vflip", "random_erasing", "mix_probability", "cutmix_share", "label_smoothing")
        for name in shares:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"augment.{name} is {value}, but it is a share and must lie between 0 and 1.")
        for name in ("color_jitter", "mixup", "cutmix"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise UsageError(f"augment.{name} is {value}, but it must be 0 (off) or a positive number.")
        if self.erasing_fill not in ("const", "rand", "pixel"):
            raise UsageError(
                f"augment.erasing_fill is '{self.erasing_fill}', but it must be 'const', 'rand' or 'pixel'."
            )
        if self.rand_augment and not _RAND_AUGMENT.fullmatch(self.rand_augment):
            raise UsageError(
                f"augment.rand_augment is '{self.rand_augment}', but it must be 'rand' followed by sections such as "
                "'-m9' (magnitude), '-n2' (operations), '-mstd0.5' (spread), '-inc1'. "
                "Use 'rand-m9-mstd0.5-inc1', or '' to switch it off."
            )
