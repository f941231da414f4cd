"""The keys that a recipe of segmentation has besides those of all tasks, and the options of its heads; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least, within
from hybridvit.recipe.groups import DataConfig, Source
from hybridvit.recipe.headed import HeadedRecipe

OF_MASKS = ("reduce_zero_label", "ignore_label", "binary", "allow_absent")  # keys of sources of any masks


@dataclass(frozen=True, kw_only=True)
class SemanticFPNConfig:
    """Options of Semantic FPN; the defaults are those of FastViT's Table 9."""

    pyramid_channels: int = 256  # of the feature pyramid
    channels: int = 128  # of the convolutions on the way to stride 4
    drop_rate: float = 0.1  # of whole channels, before the last layer

    def __post_init__(self) -> None:
        _check(self, ("pyramid_channels", "channels"))


@dataclass(frozen=True, kw_only=True)
class UPerNetConfig:
    """Options of UPerNet; the defaults are those of FasterViT's Table 4."""

    channels: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)  # parts of a side that pyramid pooling makes means of
    drop_rate: float = 0.1  # of whole channels, before the last layers
    auxiliary: bool = True  # a second answer from stride 16, in training alone
    auxiliary_channels: int = 256

    def __post_init__(self) -> None:
        _check(self, ("channels", "auxiliary_channels"))
        if not self.bins or min(self.bins) < 1:
            raise UsageError(f"bins is {self.bins}, but must be whole numbers from 1, such as (1, 2, 3, 6).")


def _check(config: SemanticFPNConfig | UPerNetConfig, sizes: tuple[str, ...]) -> None:
    for name in sizes:
        if getattr(config, name) < 1:
            raise UsageError(f"{name} is {getattr(config, name)}, but a head needs at least one channel.")
    if not 0 <= config.drop_rate < 1:
        raise UsageError(f"drop_rate is {config.drop_rate}, but a probability here is at least 0 and below 1.")


SOURCES = {
    "folder": Source(
        meaning="pictures and masks in folders, laid out as ADE20K, Pascal VOC or Cityscapes, or as images/ and masks/",
        opener="hybridvit.tasks.segment.folders:open_folder",
        needs_root=True,
        keys=(*OF_MASKS, "allow_unpaired", "fold"),
    ),
    "huggingface": Source(
        meaning="two columns of a data set of the datasets library",
        opener="hybridvit.tasks.segment.columns:open_columns",
        needs_root=True,
        keys=(*OF_MASKS, "image_column", "mask_column"),
    ),
    "scenes": Source(
        meaning="shapes on textured ground, written to root first",
        opener="hybridvit.tasks.segment.folders:open_scenes",
        keys=("fold",),
    ),
    "generated": Source(meaning="colours and noise", opener="hybridvit.tasks.segment.generated:open_generated"),
}
"""Where pictures with masks can come from.

An opener is given the recipe's `data` and the `MaskedOptions` for the training and for the validation pictures, and
gives these two as `MaskedSamples`. It raises DatasetError or UsageError where they are not to be had.
"""
_SOURCES_HELP = "; ".join(f"{name}: {source.meaning}" for name, source in SOURCES.items()) + "."


@dataclass(frozen=True, kw_only=True)
class SegmentData(DataConfig):
    """Images: where they are, and how they are batched"""

    sources = SOURCES

    source: Literal[tuple(SOURCES)] = field(default="folder", metadata={"help": _SOURCES_HELP})  # type: ignore[valid-type]

    image_size: int = 512
    """Side of the square part that training cuts out, in pixels."""
    fit_px: tuple[int, ...] = ()
    """The most that the shorter and the longer side of a picture have when it is shown whole, such as [512, 2048];
    training begins from it, too. Left out: image_size and four times that."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling filter of the resize."""
    total_batch: int = 16
    """Images per optimizer step over all devices; each device's share is derived from it."""
    mask_column: str = ""
    """For a Hugging Face data set: the column of the masks. Left out where its name or type tells."""
    reduce_zero_label: bool = False
    """Whether value 0 of a mask stands for what belongs to no class, as ADE20K has it: it is ignored then, and value 1
    is the first class."""
    ignore_label: int = 255
    """The value of a mask that stands for pixels which are neither learnt from nor judged."""
    binary: Literal["", "foreground", "ignore"] = ""
    """What 255 means in masks of 0 and 255 alone: foreground: the second class; ignore: pixels of no class."""
    allow_absent: bool = False
    """Train although the training masks have no pixel of some class, which the model then learns never to say."""
    allow_unpaired: bool = False
    """Leave out pictures without a mask and masks without a picture, in place of refusing them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fit_px and not (len(self.fit_px) == 2 and 32 <= self.fit_px[0] <= self.fit_px[1]):
            raise UsageError(
                f"Recipe key 'data.fit_px' is {list(self.fit_px)}, but it must be the most of the shorter and of the "
                "longer side in pixels, such as [512, 2048]."
            )
        within("data.ignore_label", self.ignore_label, 0, 65535)
        if self.binary and self.reduce_zero_label:
            raise UsageError(
                f"Recipe keys 'data.binary' ({self.binary}) and 'data.reduce_zero_label' both say what 0 means. Leave "
                "one of them out."
            )


@dataclass(frozen=True, kw_only=True)
class SegmentAugment:
    """What training does to a picture and its mask; the defaults are those of the published ADE20K runs."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor on the size that fits data.fit_px; the aspect is kept."""
    largest_share: float = 0.75
    """Most of the part that is cut out that one class may have; ten places are tried. 1 takes the first."""
    hflip: float = 0.5
    """Probability of a left-right flip."""
    distortion: float = 0.5
    """Probability of each of the changes of brightness, contrast, saturation and hue; 0 switches them off."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise UsageError(
                f"augment.scale is {list(self.scale)}, but it must be the smallest and the largest factor, above 0. "
                "Use for example [0.5, 2.0]."
            )
        for name in ("largest_share", "hflip", "distortion"):
            within(f"augment.{name}", getattr(self, name), 0.0, 1.0)


SMALL = {
    "semantic_fpn": {"pyramid_channels": 16, "channels": 16},
    "upernet": {"channels": 16, "auxiliary_channels": 16},
}


@dataclass(frozen=True, kw_only=True)
class SegmentRecipe(HeadedRecipe):
    """The run"""

    trial_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"": SMALL["semantic_fpn"], **SMALL}

    data: SegmentData = field(default_factory=SegmentData)
    """Images"""
    augment: SegmentAugment = field(default_factory=SegmentAugment)
    """Augmentation"""
    auxiliary_weight: float = 0.4
    """Weight of the loss of the auxiliary head, where the head has one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("auxiliary_weight", self.auxiliary_weight, 0.0, "0 leaves the auxiliary head untrained")
