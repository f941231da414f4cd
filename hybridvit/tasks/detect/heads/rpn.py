"""The first of two stages: where an object of any class may be (Ren et al., Faster R-CNN, 2015, section 3)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_iou

from hybridvit.tasks.detect.heads.boxes import clipped, decoded, encoded, is_larger, kept, share_inside
from hybridvit.tasks.detect.heads.config import STRIDES, FasterRCNNConfig
from hybridvit.tasks.detect.heads.sampling import IGNORED, LARGEST_SHARE, Target, chosen

OBJECT, NONE = 1, 0  # labels of anchors
HIGH, LOW = 0.7, 0.3  # IoU from which an anchor has an object, and below which it has none
OVERLAP = 0.7  # IoU above which the worse of two proposals of a level is dropped
SAMPLES, POSITIVE_SHARE = 256, 0.5  # anchors of an image that the loss is made of
SMALLEST_PX = 1e-3
UNIT = (1.0, 1.0, 1.0, 1.0)


class Proposals(NamedTuple):
    """The most promising boxes of each image, best first."""

    boxes: Float[Tensor, "b k 4"]
    scores: Float[Tensor, "b k"]  # below 0 in rows without a box


class RegionProposals(nn.Module):
    """Scores anchors of three shapes at each place of each level, and moves them."""

    def __init__(self, config: FasterRCNNConfig) -> None:
        super().__init__()
        self.config = config
        self.head = RPNHead(config.pyramid_channels, len(config.anchor_ratios))

    def forward(self, levels: Sequence[Float[Tensor, "b c _h _w"]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level anchors (n, 4), logits (b, n) and deltas (b, n, 4), in float32."""
        logits, deltas = self.head(levels)
        anchors = [
            anchors_of(level, stride, size, self.config.anchor_ratios)
            for level, stride, size in zip(levels, STRIDES, self.config.anchor_sizes, strict=True)
        ]
        flat = [each.permute(0, 2, 3, 1).flatten(1).float() for each in logits]  # b a h w -> b (h w a)
        moves = [each.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2) for each in deltas]  # b (a 4) h w -> b h w a 4
        return anchors, flat, [each.flatten(1, 3).float() for each in moves]

    def propose(
        self,
        anchors: Sequence[Float[Tensor, "_n 4"]],
        logits: Sequence[Float[Tensor, "b _n"]],
        deltas: Sequence[Float[Tensor, "b _n 4"]],
        sizes: Float[Tensor, "b 2"],
    ) -> Proposals:
        """What the second stage looks at, without gradient; sizes are heights and widths of the images."""
        most = self.config.train_proposals if self.training else self.config.proposals
        boxes, scores, groups = [], [], []
        for level, (where, scored, moved) in enumerate(zip(anchors, logits, deltas, strict=True)):
            best = scored.detach().topk(min(most, scored.shape[1]), dim=1)
            deltas_of_best = moved.detach().take_along_dim(best.indices[..., None], dim=1)
            boxes.append(decoded(deltas_of_best, where[best.indices], UNIT))
            scores.append(best.values.sigmoid())
            groups.append(torch.full_like(best.indices, level))
        cut = clipped(torch.cat(boxes, dim=1), sizes[:, None])
        valid = torch.cat(scores, dim=1).masked_fill(~is_larger(cut, SMALLEST_PX), -1)
        group = torch.cat(groups, dim=1)[0]
        return Proposals(
            *map(
                torch.stack,
                zip(*(_suppressed(cut[i], valid[i], group, most) for i in range(len(cut))), strict=True),
            )
        )

    def losses(
        self,
        anchors: Sequence[Float[Tensor, "_n 4"]],
        logits: Sequence[Float[Tensor, "b _n"]],
        deltas: Sequence[Float[Tensor, "b _n 4"]],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Of a sample of the anchors: whether there is an object, and how far its box is."""
        where = torch.cat(list(anchors))
        scored, moved = torch.cat(list(logits), dim=1), torch.cat(list(deltas), dim=1)
        answers, truths, positives, wanted = [], [], [], []
        for image, target in enumerate(targets):
            labels, boxes = labels_of(where, target)
            numbers = chosen(labels, NONE, count=SAMPLES, positive_share=POSITIVE_SHARE)
            answers.append(scored[image, numbers])
            truths.append(labels[numbers])
            with_object = numbers[labels[numbers] == OBJECT]
            positives.append(moved[image, with_object])
            wanted.append(encoded(where[with_object], boxes[with_object], UNIT))
        count = max(1, sum(map(len, truths)))
        objectness = F.binary_cross_entropy_with_logits(
            torch.cat(answers), torch.cat(truths).to(scored), reduction="sum"
        )
        distance = F.smooth_l1_loss(torch.cat(positives), torch.cat(wanted), beta=self.config.beta, reduction="sum")
        return {"loss_objectness": objectness / count, "loss_rpn_box_reg": distance / count}


def _suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, most: int) -> tuple[Tensor, Tensor]:
    numbers = kept(boxes, scores, groups, overlap=OVERLAP, most=most)
    padded = torch.cat((boxes, boxes.new_zeros(1, 4)))
    return padded[numbers], torch.cat((scores, scores.new_full((1,), -1)))[numbers]


def anchors_of(level: Tensor, stride: int, size: int, ratios: Sequence[float]) -> Float[Tensor, "n 4"]:
    """Boxes of about `size` x `size` pixels around the first corner of each place of a map, row by row.

    A ratio is height over width; all have the same area, and whole numbers as half sides.
    """
    height, width = level.shape[-2:]
    tall = torch.tensor(ratios, dtype=torch.float32, device=level.device).sqrt()
    halves = torch.stack((size / tall, size * tall), dim=1) / 2
    shapes = torch.cat((-halves, halves), dim=1).round()  # a 4
    x = torch.arange(width, dtype=torch.float32, device=level.device) * stride
    y = torch.arange(height, dtype=torch.float32, device=level.device) * stride
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)  # h w 2
    return (places.repeat(1, 1, 2)[:, :, None] + shapes).flatten(0, 2)


def labels_of(anchors: Float[Tensor, "n 4"], target: Target) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 4"]]:
    """Whether each anchor has an object, and the object's box.

    It has from an IoU of 0.7, or if no other overlaps that object more; it has none below 0.3. What lies between is
    ignored, and so is what lies in the padding, or by more than half in an ignored region.
    """
    labels = anchors.new_full((len(anchors),), NONE, dtype=torch.long)
    truth, boxes = target["boxes"].to(anchors), torch.zeros_like(anchors)
    if len(truth):
        overlaps = box_iou(truth, anchors)
        best, objects = overlaps.max(0)
        labels = labels.masked_fill(best >= LOW, IGNORED).masked_fill(best >= HIGH, OBJECT)
        most = overlaps.amax(1, keepdim=True)
        labels = labels.masked_fill(((overlaps == most) & (most > 0)).any(0), OBJECT)
        boxes = truth[objects]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    is_padding = (centres >= target["size"].flip(0)).any(1)
    is_ignored = share_inside(anchors, target["ignored"].to(anchors)) > LARGEST_SHARE
    return labels.masked_fill(is_padding | is_ignored, IGNORED), boxes
