"""The options of the heads of detection; no torch."""

from dataclasses import dataclass
from typing import Literal

from hybridvit.errors import UsageError
from hybridvit.models.checks import check_choice, check_flag, check_integer, check_whole_numbers
from hybridvit.tasks.detect.dino.config import DINOOptions

BoxLoss = Literal["smooth_l1", "l1", "giou"]
STRIDES = (4, 8, 16, 32, 64)  # of the levels of the feature pyramid; regions are pooled from all but the last
SMOOTH_BETA = 1 / 9  # where the loss of a number of a box turns from a square to a line


@dataclass(frozen=True, kw_only=True)
class FasterRCNNConfig:
    """Options of Faster R-CNN; the defaults are those of the published R50-FPN at images of 800 px.

    Raises UsageError for values out of their range.
    """

    pyramid_channels: int = 256
    pyramid_norm: bool = False  # BatchNorm behind each convolution of the feature pyramid
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)  # px, one for each of the levels of stride 4 to 64
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height over width
    train_proposals: int = 2000  # of an image, and of each level before the overlapping ones are suppressed
    proposals: int = 1000  # the same, in eval mode
    samples: int = 512  # proposals of an image that the loss of a stage is made of
    box_head: Literal["2fc", "4conv1fc"] = "2fc"
    class_agnostic: bool = False  # one box for all classes, else one for each
    box_loss: BoxLoss = (
        "smooth_l1"  # torchvision's; "l1" is mmdetection's, both also of proposals; "giou" of stages alone
    )
    conv_channels: int = 256  # of the convolutions of box and mask heads
    fc_width: int = 1024  # of the linear layers of box heads
    stages: int = 1  # that refine a box one after another, 1 to 3
    canonical_px: int = 224  # regions of this side are pooled from stride 16: it is to follow the size of the images
    aligned: bool = True  # pool regions by the centres of their pixels; torchvision's models do not
    score_threshold: float = 0.05
    overlap: float = 0.5  # IoU above which the worse of two detections of a class is dropped
    detections: int = 100  # of an image

    def __post_init__(self) -> None:
        names = (
            "pyramid_channels",
            "train_proposals",
            "proposals",
            "samples",
            "conv_channels",
            "fc_width",
            "detections",
        )
        for name in (*names, "canonical_px"):
            check_integer(name, getattr(self, name), 1)
        for name in ("pyramid_norm", "class_agnostic", "aligned"):
            check_flag(name, getattr(self, name))
        check_choice("box_head", self.box_head, ("2fc", "4conv1fc"))
        check_choice("box_loss", self.box_loss, ("smooth_l1", "l1", "giou"))
        check_whole_numbers("anchor_sizes", self.anchor_sizes)
        if len(self.anchor_sizes) != len(STRIDES):
            raise UsageError(
                f"anchor_sizes is {self.anchor_sizes}, but there are {len(STRIDES)} levels. Give one size for each."
            )
        if not self.anchor_ratios or not min(self.anchor_ratios) > 0:
            raise UsageError(
                f"anchor_ratios is {self.anchor_ratios}, but must be numbers above 0, such as (0.5, 1, 2)."
            )
        if self.stages not in (1, 2, 3):
            raise UsageError(f"stages is {self.stages!r}, but must be 1, 2 or 3: each has an overlap of its own.")
        for name in ("score_threshold", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}, but must be from 0 to 1.")

    @property
    def beta(self) -> float:
        """That of the smooth L1 loss, which is L1 at 0."""
        return 0.0 if self.box_loss == "l1" else SMOOTH_BETA


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(FasterRCNNConfig):
    """Options of Mask R-CNN: those of Faster R-CNN."""


@dataclass(frozen=True, kw_only=True)
class CascadeRCNNConfig(FasterRCNNConfig):
    """Options of Cascade R-CNN; the defaults are those that Swin's and ConvNeXt's papers use."""

    box_head: Literal["2fc", "4conv1fc"] = "4conv1fc"
    box_loss: BoxLoss = "giou"
    stages: int = 3


@dataclass(frozen=True, kw_only=True)
class CascadeMaskRCNNConfig(CascadeRCNNConfig):
    """Options of Cascade Mask R-CNN: those of Cascade R-CNN."""


@dataclass(frozen=True, kw_only=True)
class DINOHeadConfig(DINOOptions):
    """Options of DINO; the defaults are those of the published 4-scale head."""

    strides: tuple[int, ...] = (8, 16, 32)  # of the maps that are read; (4, 8, 16, 32) for the 5-scale head
    map_norm: bool = False  # BatchNorm on each of these maps, as NVIDIA published FasterViT's detector
    detections: int = 300  # of an image

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("map_norm", self.map_norm)
        check_integer("detections", self.detections, 1)
        if self.strides not in ((8, 16, 32), (4, 8, 16, 32)):
            raise UsageError(f"strides is {self.strides}, but must be (8, 16, 32), or (4, 8, 16, 32) for five scales.")
