"""DINO as a head on maps of strides 8, 16 and 32, with targets and answers in the form of all heads of detection.

Where a backbone has a map of stride 64, that is the coarsest level.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.models.with_head import Head
from hybridvit.tasks.detect.dino.boxes import Objects, centred
from hybridvit.tasks.detect.dino.config import DINOConfig, DINOOptions
from hybridvit.tasks.detect.dino.detections import best_detections
from hybridvit.tasks.detect.dino.head import DINOHead
from hybridvit.tasks.detect.dino.outputs import DINOOutputs
from hybridvit.tasks.detect.heads.config import DINOHeadConfig
from hybridvit.tasks.detect.heads.sampling import Target

ALL_STRIDES = (4, 8, 16, 32)


class DINO(Head):
    """In training it gives what `DINOLoss` takes; in eval mode "boxes", "scores" and "labels" as R-CNN heads do."""

    def __init__(self, config: DINOHeadConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        has_coarsest = len(channels) > len(ALL_STRIDES)  # a map of stride 64
        self.maps = [ALL_STRIDES.index(stride) for stride in config.strides] + [len(ALL_STRIDES)] * has_coarsest
        self.detections = config.detections
        own = [channels[number] for number in self.maps]
        options = {field.name: getattr(config, field.name) for field in dataclasses.fields(DINOOptions)}
        self.norms = nn.ModuleList(nn.BatchNorm2d(each) for each in own if config.map_norm)
        self.detector = DINOHead(
            DINOConfig(channels=tuple(own), num_classes=num_classes, has_coarsest=has_coarsest, **options)
        )
        heads = range(len(self.detector.decoder.class_heads))
        self.class_layers = (
            "detector.two_stage.class_head",
            *(f"detector.decoder.class_heads.{number}" for number in heads),
            "detector.denoising.labels",
        )

    def forward(
        self, maps: Sequence[Float[Tensor, "b _f _h _w"]], images: Float[Tensor, "b c h w"], *more: Any
    ) -> DINOOutputs | dict[str, Tensor]:
        """See the class. In training mode it is given the targets of the images, one dict each.

        Raises UsageError in training mode without targets, and for maps with fewer places than there are queries.
        """
        read = [maps[number] for number in self.maps]
        if len(self.norms):
            read = [norm(fmap) for norm, fmap in zip(self.norms, read, strict=True)]
        height, width = images.shape[-2:]
        if self.training:
            if not more:
                raise UsageError(
                    "The head is in training mode, where it denoises copies of the objects, but was given no targets. "
                    "Give those of each image, or call eval() first."
                )
            return self.detector(read, padding_of(more[0], height, width), objects_of(more[0]))
        found = best_detections(self.detector(read), self.detections)
        sides = found.boxes.new_tensor([width, height, width, height])
        return {"boxes": found.boxes * sides, "scores": found.scores, "labels": found.labels}


def objects_of(targets: Sequence[Target]) -> list[Objects]:
    """The objects of each image, their boxes in shares of its part that is not padding."""
    return [
        Objects(target["labels"], centred(target["boxes"].float() / target["size"].flip(0).repeat(2)))
        for target in targets
    ]


def padding_of(targets: Sequence[Target], height: int, width: int) -> Bool[Tensor, "b h w"]:
    """True at the pixels of the batch that are no image."""
    sizes = torch.stack([target["size"] for target in targets])
    rows = torch.arange(height, device=sizes.device) >= sizes[:, :1]  # b h
    columns = torch.arange(width, device=sizes.device) >= sizes[:, 1:]  # b w
    return rows[:, :, None] | columns[:, None]
