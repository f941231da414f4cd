"""Faster R-CNN, Mask R-CNN (He et al., 2017) and their cascades (Cai and Vasconcelos, 2018), which are one head.

In a cascade each stage is trained on the boxes that the stage before it made, for a higher overlap; at inference the
scores of all stages are averaged, and so are their masks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.models.with_head import Head
from hybridvit.tasks.detect.heads.boxes import clipped, decoded, is_larger, keeps_shapes, kept
from hybridvit.tasks.detect.heads.config import FasterRCNNConfig
from hybridvit.tasks.detect.heads.parts import BOX_CELLS, MASK_CELLS, BoxHead, MaskHead
from hybridvit.tasks.detect.heads.pooling import RegionPooling, of_list, with_images
from hybridvit.tasks.detect.heads.pyramid import FeaturePyramid
from hybridvit.tasks.detect.heads.rpn import Proposals, RegionProposals
from hybridvit.tasks.detect.heads.sampling import Samples, Target, assigned, has_object

OVERLAPS = (0.5, 0.6, 0.7)  # IoU from which a box of each stage has an object
BOX_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
POSITIVE_SHARE = 0.25  # of the samples of a stage
CANDIDATES = 4000  # answers of an image, of all regions and classes, among which the overlapping ones are suppressed
SMALLEST_PX = 1e-2
Levels = Sequence[Float[Tensor, "b c _h _w"]]


class RCNN(Head):
    """In training it gives named losses, in eval mode a dict of fixed shapes with `config.detections` rows an image.

    These are "boxes" (b, k, 4) in pixels of the input, "scores" (b, k), 0 in empty rows, "labels" (b, k) and, with a
    mask head, "masks" (b, k, 28, 28): for each pixel of a box the probability that it is of the object.
    """

    def __init__(self, config: FasterRCNNConfig, channels: Sequence[int], num_classes: int, *, masks: bool) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.fpn = FeaturePyramid(channels, config.pyramid_channels, norm=config.pyramid_norm)
        self.rpn = RegionProposals(config)
        self.box_heads = nn.ModuleList(
            BoxHead(config, num_classes, weights) for weights in BOX_WEIGHTS[: config.stages]
        )
        self.mask_heads = nn.ModuleList(MaskHead(config, num_classes) for _ in range(config.stages if masks else 0))
        per_class = ["classes"] if config.class_agnostic else ["classes", "boxes"]
        self.class_layers = (
            *(f"box_heads.{stage}.{layer}" for stage in range(config.stages) for layer in per_class),
            *(f"mask_heads.{stage}.predictor.mask_fcn_logits" for stage in range(len(self.mask_heads))),
        )
        self._pool_boxes, self._pool_masks = (
            RegionPooling(size=size, canonical_px=config.canonical_px, aligned=config.aligned)
            for size in (BOX_CELLS, MASK_CELLS)
        )

    def forward(
        self, maps: Sequence[Float[Tensor, "b _f _h _w"]], images: Float[Tensor, "b c h w"], *more: Any
    ) -> dict[str, Tensor]:
        """See the class. In training mode it is given the targets of the images, one dict each.

        Raises UsageError in training mode without targets, or for targets without masks where masks are learnt.
        """
        levels = self.fpn(maps)
        anchors, logits, deltas = self.rpn(levels)
        if self.training:
            targets = self._checked(more)
            sizes = torch.stack([target["size"] for target in targets]).float()
            proposals = self.rpn.propose(anchors, logits, deltas, sizes)
            losses = self.rpn.losses(anchors, logits, deltas, targets)
            return losses | self._losses(levels, proposals, sizes, targets)
        sizes = images.new_tensor(images.shape[-2:], dtype=torch.float32).expand(len(images), 2)
        proposals = self.rpn.propose(anchors, logits, deltas, sizes)
        return self._detections(levels, proposals, sizes)

    def _checked(self, more: tuple[Any, ...]) -> Sequence[Target]:
        if not more:
            raise UsageError(
                "The head is in training mode, where it gives losses, but was given no targets. Give those of each "
                "image, or call eval() first."
            )
        if len(self.mask_heads) and not all("masks" in target for target in more[0]):
            raise UsageError(
                "The head learns masks, but an image comes without. Use data with masks, or a head without: "
                "faster_rcnn or cascade_rcnn."
            )
        return more[0]

    def _losses(
        self, levels: Levels, proposals: Proposals, sizes: Float[Tensor, "b 2"], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        config = self.config
        losses: dict[str, Tensor] = {}
        boxes = [each[scores >= 0] for each, scores in zip(*proposals, strict=True)]
        for stage, head in enumerate(self.box_heads):
            assert isinstance(head, BoxHead)
            samples = assigned(
                boxes,
                targets,
                self.num_classes,
                overlap=OVERLAPS[stage],
                count=config.samples,
                positive_share=POSITIVE_SHARE,
            )
            answers = head(self._pool_boxes(levels, of_list([each.boxes for each in samples])))
            parts = head.losses(answers, samples)
            if len(self.mask_heads):
                parts["loss_mask"] = self._mask_loss(stage, levels, samples, targets)
            name = f"_{stage}" if config.stages > 1 else ""
            losses |= {f"{part}{name}": LOSS_WEIGHTS[stage] * value for part, value in parts.items()}
            if stage + 1 < config.stages:
                boxes = self._refined(head, answers.detach(), samples, sizes)
        return losses

    def _mask_loss(self, stage: int, levels: Levels, samples: Sequence[Samples], targets: Sequence[Target]) -> Tensor:
        head = self.mask_heads[stage]
        assert isinstance(head, MaskHead)
        found = [Samples(*(part[has_object(each.labels, self.num_classes)] for part in each)) for each in samples]
        logits = head(self._pool_masks(levels, of_list([each.boxes for each in found])))
        return head.losses(logits, found, targets)

    def _refined(self, head: BoxHead, answers: Tensor, samples: Sequence[Samples], sizes: Tensor) -> list[Tensor]:
        """The proposals among the samples as `head` moved them: for their object's class, or for the likeliest."""
        logits, deltas = head.split(answers)
        boxes, labels = (torch.cat([getattr(each, name) for each in samples]) for name in ("boxes", "labels"))
        classes = torch.where(has_object(labels, self.num_classes), labels, logits[:, :-1].argmax(1))
        moved = decoded(head.of_class(deltas, classes), boxes, head.weights).split(
            [len(each.boxes) for each in samples]
        )
        return [
            clipped(each, size[None])[one.is_proposal] for each, size, one in zip(moved, sizes, samples, strict=True)
        ]

    def _detections(self, levels: Levels, proposals: Proposals, sizes: Float[Tensor, "b 2"]) -> dict[str, Tensor]:
        boxes, is_valid = proposals.boxes, proposals.scores >= 0
        scores = []
        for stage, head in enumerate(self.box_heads):
            assert isinstance(head, BoxHead)
            pooled = _Regions(levels, boxes, is_valid, self._pool_boxes)
            logits, deltas = head.split(pooled.given_to(head))
            scores.append(logits.softmax(-1)[..., :-1])
            if stage + 1 < self.config.stages:
                likeliest = logits[..., :-1].argmax(-1)
                boxes = clipped(decoded(head.of_class(deltas, likeliest), boxes, head.weights), sizes[:, None])
        weights = BOX_WEIGHTS[self.config.stages - 1]
        moved = clipped(decoded(deltas, boxes[:, :, None], weights), sizes[:, None, None])  # b k c 4
        mean = torch.stack(scores).mean(0)
        answers = self._best(moved.expand(-1, -1, self.num_classes, -1), mean.masked_fill(~is_valid[..., None], -1))
        if len(self.mask_heads):
            answers["masks"] = self._masks(levels, answers)
        return answers

    def _best(self, boxes: Float[Tensor, "b k c 4"], scores: Float[Tensor, "b k c"]) -> dict[str, Tensor]:
        """The detections of each image, best first."""
        config, num_classes = self.config, self.num_classes
        is_answer = (scores > config.score_threshold) & is_larger(boxes, SMALLEST_PX)
        scores, boxes = scores.masked_fill(~is_answer, -1).flatten(1), boxes.flatten(1, 2)
        most = min(CANDIDATES, scores.shape[1])
        images = []
        for every_score, every_box in zip(scores.unbind(), boxes.unbind(), strict=True):
            best = every_score.topk(most)
            labels, found = best.indices % num_classes, every_box[best.indices]
            numbers = kept(found, best.values, labels, overlap=config.overlap, most=config.detections)
            of_rows = torch.cat((best.values, best.values.new_zeros(1)))[numbers].clamp(min=0)
            is_row = of_rows > 0
            of_boxes = torch.cat((found, found.new_zeros(1, 4)))[numbers] * is_row[:, None]
            images.append((of_boxes, of_rows, torch.cat((labels, labels.new_zeros(1)))[numbers] * is_row))
        return dict(zip(("boxes", "scores", "labels"), map(torch.stack, zip(*images, strict=True)), strict=True))

    def _masks(self, levels: Levels, answers: dict[str, Tensor]) -> Float[Tensor, "b k m m"]:
        is_valid = answers["scores"] > 0
        pooled = _Regions(levels, answers["boxes"], is_valid, self._pool_masks)
        masks = []
        for head in self.mask_heads:
            logits = pooled.given_to(head)  # b k c m m
            labels = answers["labels"][..., None, None, None]
            masks.append(logits.take_along_dim(labels, dim=2)[:, :, 0].sigmoid())
        return torch.stack(masks).mean(0) * is_valid[..., None, None]


class _Regions:
    """Pooled features of the rows that hold a box; in an exported graph of all rows."""

    def __init__(
        self, levels: Levels, boxes: Float[Tensor, "b k 4"], is_valid: Bool[Tensor, "b k"], pool: RegionPooling
    ) -> None:
        regions = with_images(boxes)
        self._shape = boxes.shape[:2]
        self._numbers = None if keeps_shapes(boxes) else is_valid.flatten().nonzero()[:, 0]
        self._pooled = pool(levels, regions if self._numbers is None else regions[self._numbers])

    def given_to(self, head: Callable[[Tensor], Tensor]) -> Float[Tensor, "b k *answer"]:
        """What `head` says of each row: zeros for those without a box."""
        said = head(self._pooled)
        if self._numbers is not None:
            zeros = said.new_zeros(self._shape.numel(), *said.shape[1:])
            said = zeros.index_copy(0, self._numbers, said)
        return said.unflatten(0, self._shape)
