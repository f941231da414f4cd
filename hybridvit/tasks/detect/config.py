"""The keys that a recipe of detection has besides those of all tasks. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least, within
from hybridvit.recipe.groups import DataConfig, Source
from hybridvit.recipe.headed import HeadedRecipe
from hybridvit.tasks.detect.dino.config import NORM_GROUPS

Kind = Literal["auto", "coco", "yolo", "voc", "csv", "labelme"]

SOURCES = {
    "files": Source(
        meaning="pictures with boxes or masks as COCO, YOLO, Pascal VOC, CSV or LabelMe has them, found by looking",
        opener="hybridvit.tasks.detect.data:open_files",
        needs_root=True,
        keys=("fold", "kind"),
    ),
    "scenes": Source(
        meaning="shapes on a textured ground, written to root first", opener="hybridvit.tasks.detect.data:open_scenes"
    ),
    "generated": Source(meaning="bright rectangles in noise", opener="hybridvit.tasks.detect.generated:open_generated"),
}
"""Where pictures with objects can come from.

An opener is given the recipe's `data` and the `DrawnAs` of training and of validation pictures, and gives these two as
`DetectionSamples`. It raises DatasetError or UsageError where they are not to be had.
"""
_SOURCES_HELP = "; ".join(f"{name}: {source.meaning}" for name, source in SOURCES.items()) + "."


@dataclass(frozen=True, kw_only=True)
class DetectData(DataConfig):
    """Images: where they are, and how they are batched"""

    sources = SOURCES

    root: str = ""
    """Folder of the data set; or the list itself (.json, .yaml, .csv)."""
    train: str = "train"
    """What the training split is called in the data set; or its list or folder, inside root."""
    val: str = "val"
    """The same of the validation split. `valid` and `validation` are looked for too."""
    source: Literal[tuple(SOURCES)] = field(default="files", metadata={"help": _SOURCES_HELP})  # type: ignore[valid-type]

    kind: Kind = "auto"
    """How files say what is in a picture; auto: found by looking."""
    image_size: int = 800
    """The most that the shorter side of a picture has, in pixels."""
    max_size: int = 1333
    """The most that its longer side has."""
    train_sizes: tuple[int, ...] = ()
    """Shorter sides of training pictures, of which each step takes one by (seed, step), instead of image_size."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling filter of the resize."""
    total_batch: int = 16
    """Images per optimizer step over all devices; each device's share is derived from it."""
    min_area: float = 0.0
    """Objects of fewer pixels, in the picture as it is, are neither to be found in training nor to be avoided."""
    max_instances: int = 0
    """Most objects of a training picture, the largest; those beyond are neither to be found nor avoided. 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.max_size", self.max_size, self.image_size, "the longer side is not below the shorter")
        at_least("data.min_area", self.min_area, 0.0, "0 keeps all objects")
        at_least("data.max_instances", self.max_instances, 0, "0 keeps all objects")
        if self.crop_fraction != type(self).crop_fraction:
            raise UsageError(
                f"Recipe key 'data.crop_fraction' is {self.crop_fraction}, but detection shows pictures whole. Leave "
                "it out."
            )


SMALL_RCNN: Mapping[str, Any] = {
    "pyramid_channels": 16,
    "anchor_sizes": (4, 8, 16, 24, 32),
    "train_proposals": 50,
    "proposals": 20,
    "samples": 16,
    "conv_channels": 16,
    "fc_width": 32,
    "canonical_px": 16,
    "detections": 10,
}
SMALL_DINO: Mapping[str, Any] = {
    "dim": 2 * NORM_GROUPS,  # where a map is one position a group of the norm has no other numbers
    "num_queries": 10,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "ffn_width": 32,
    "detections": 10,
}
"""Of the heads of dry runs."""


@dataclass(frozen=True, kw_only=True)
class DetectAugmentConfig:
    """Augmentation"""

    resize: Literal["whole", "detr", "jitter"] = "whole"
    """whole: the shorter side to image_size, or one of train_sizes; detr: half of the pictures are cut before that, as
    DETR does; jitter: a square of image_size out of the picture at 0.1 to 2.0 of that size (large-scale jitter)."""
    jitter: tuple[float, float] = (0.1, 2.0)
    """Of jitter: the least and the most of the size."""
    crop_sides: tuple[int, ...] = (400, 500, 600)
    """Of detr: shorter sides to resize to before the cut."""
    crop_range: tuple[int, int] = (384, 600)
    """Of detr: the least and the most of a side that is cut out."""
    hflip: float = 0.5
    """Probability of a mirrored picture."""
    vflip: float = 0.0
    """Probability of a picture upside down."""
    photometric: float = 0.0
    """Probability of each change of brightness, contrast, saturation and hue, and of the channels' order."""

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip", "photometric"):
            within(f"augment.{name}", getattr(self, name), 0.0, 1.0)
        for name, low in (("jitter", 0.01), ("crop_range", 32)):
            values = getattr(self, name)
            if len(values) != 2 or not low <= values[0] <= values[1]:
                raise UsageError(
                    f"Recipe key 'augment.{name}' is {list(values)}, but must be the least and the most, from {low} up."
                )
        if not self.crop_sides or min(self.crop_sides) < 32:
            raise UsageError(
                f"Recipe key 'augment.crop_sides' is {list(self.crop_sides)}, but must be sides from 32 px up."
            )


@dataclass(frozen=True, kw_only=True)
class DetectRecipe(HeadedRecipe):
    """The run"""

    trial_options: ClassVar[Mapping[str, Mapping[str, Any]]] = dict.fromkeys(
        ("", "faster_rcnn", "mask_rcnn", "cascade_rcnn", "cascade_mask_rcnn"), SMALL_RCNN
    ) | {"dino": SMALL_DINO}

    head: str = ""
    """The head on the backbone; empty: mask_rcnn where all objects have masks, else faster_rcnn."""
    data: DetectData = field(default_factory=DetectData)
    """Images"""
    augment: DetectAugmentConfig = field(default_factory=DetectAugmentConfig)
    """Augmentation"""
