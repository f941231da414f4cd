"""What a DINO head is made of. Importing it needs no torch."""

import math
from dataclasses import dataclass

from hybridvit.errors import UsageError
from hybridvit.models.checks import check_flag, check_integer, check_whole_numbers

NORM_GROUPS = 32  # of the GroupNorm behind each projection
SINE_CODES = 4  # numbers that a width is divided among: two axes, each with sines and cosines


@dataclass(frozen=True, kw_only=True)
class DINOOptions:
    """What can be chosen whatever the backbone and the classes; the defaults are the published ones.

    Raises UsageError for values out of their range.
    """

    num_queries: int = 900
    dim: int = 256
    num_heads: int = 8
    num_points: int = 4  # that a head samples on each level
    encoder_depth: int = 6
    decoder_depth: int = 6
    ffn_width: int = 2048
    shared_heads: bool = True  # one class head and one box head for all layers of the decoder; else one for each
    denoising_queries: int = 100  # as many groups as this holds copies of the fullest image's objects; 0 for none
    label_noise: float = 0.5  # twice the share of the copies that get a label drawn anew
    box_noise: float = 1.0  # how far a corner moves at most, in halves of the box; negatives up to twice as far

    def __post_init__(self) -> None:
        for name in ("num_queries", "num_points", "encoder_depth", "decoder_depth", "ffn_width"):
            check_integer(name, getattr(self, name), 1)
        check_integer("num_heads", self.num_heads, 1)
        check_integer("denoising_queries", self.denoising_queries, 0)
        check_flag("shared_heads", self.shared_heads)
        step = math.lcm(NORM_GROUPS, SINE_CODES, self.num_heads)
        if not self.dim or self.dim % step:
            raise UsageError(
                f"dim is {self.dim}, but must be a multiple of {step}: of {NORM_GROUPS} groups and {self.num_heads} "
                "heads."
            )
        if not 0 <= self.label_noise <= 2:
            raise UsageError(f"label_noise is {self.label_noise}, but must be from 0 to 2: its half is a share.")
        if not 0 <= self.box_noise < math.inf:
            raise UsageError(f"box_noise is {self.box_noise}, but must be a number from 0.")


@dataclass(frozen=True, kw_only=True)
class DINOConfig(DINOOptions):
    """With maps of strides 8, 16 and 32 it is the published 4-scale head; with those of stride 4 too the 5-scale one.

    Raises UsageError for values out of their range.
    """

    channels: tuple[int, ...]  # of the maps, finest first; each stride is half of the next
    num_classes: int
    has_coarsest: bool = False  # the last of the maps is the coarsest level, which else a convolution makes of it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_numbers("channels", self.channels)
        check_integer("num_classes", self.num_classes, 1)
        check_flag("has_coarsest", self.has_coarsest)

    @property
    def num_levels(self) -> int:
        """The maps, and unless they have the coarsest already one of half its size."""
        return len(self.channels) + (not self.has_coarsest)
