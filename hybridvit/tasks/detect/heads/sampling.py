"""Which boxes stand for which object, which for none, and which of them a loss is made of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from hybridvit.tasks.detect.heads.boxes import share_inside

Target = Mapping[str, Tensor]
"""One image of a batch: "boxes" (n, 4), "labels" (n), "ignored" (m, 4), "size" (2), and "masks" (n, h, w)."""
IGNORED = -1  # the label of what counts neither as an object nor as none
LARGEST_SHARE = 0.5  # of a box that may lie in an ignored region before it is ignored as well


class Samples(NamedTuple):
    """The chosen boxes of one image."""

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]  # of its object; the number of classes for none, -1 for ignored
    objects: Int[Tensor, "n"]  # its number in the image, where the label is of an object
    truth: Float[Tensor, "n 4"]  # its box, where the label is of an object
    is_proposal: Bool[Tensor, "n"]  # False for the boxes of the objects themselves


def has_object(labels: Int[Tensor, "n"], none: int) -> Bool[Tensor, "n"]:
    """Whether each label is of an object; `none` is that of boxes without one."""
    return (labels != IGNORED) & (labels != none)


def chosen(labels: Int[Tensor, "n"], none: int, *, count: int, positive_share: float) -> Int[Tensor, "k"]:
    """The numbers, growing, of up to `count` boxes drawn at random, up to that share of which have an object."""
    positive = has_object(labels, none).nonzero()[:, 0]
    negative = (labels == none).nonzero()[:, 0]
    positive = _drawn(positive, int(count * positive_share))
    negative = _drawn(negative, count - len(positive))
    return torch.cat((positive, negative)).sort().values


def _drawn(numbers: Tensor, count: int) -> Tensor:
    return numbers[torch.randperm(len(numbers), device=numbers.device)[:count]]


def assigned(
    proposals: Sequence[Float[Tensor, "_n 4"]],
    targets: Sequence[Target],
    num_classes: int,
    *,
    overlap: float,
    count: int,
    positive_share: float,
) -> list[Samples]:
    """The samples of each image: proposals, and the boxes of its objects.

    A box whose IoU with an object is at least `overlap` has that object. A proposal of which more than half lies in an
    ignored region is left out. Where nothing is left there is one box, ignored, as layers ask for at least one.
    """
    return [
        _assigned(boxes, target, num_classes, overlap, count, positive_share)
        for boxes, target in zip(proposals, targets, strict=True)
    ]


def _assigned(
    proposals: Tensor, target: Target, num_classes: int, overlap: float, count: int, positive_share: float
) -> Samples:
    truth = target["boxes"].to(proposals)
    candidates = torch.cat((proposals, truth))
    labels = candidates.new_full((len(candidates),), num_classes, dtype=torch.long)
    objects, matched = torch.zeros_like(labels), torch.zeros_like(candidates)
    if len(truth):
        best, objects = box_iou(truth, candidates).max(0)
        labels = torch.where(best >= overlap, target["labels"][objects], labels)
        matched = truth[objects]
    is_ignored = share_inside(proposals, target["ignored"].to(proposals)) > LARGEST_SHARE
    labels[: len(proposals)].masked_fill_(is_ignored, IGNORED)
    numbers = chosen(labels, num_classes, count=count, positive_share=positive_share)
    if not len(numbers):
        height, width = target["size"].tolist()
        whole = candidates.new_tensor([[0, 0, width, height]])
        none = numbers.new_full((1,), IGNORED)
        return Samples(whole, none, none, whole, torch.ones_like(none, dtype=torch.bool))
    is_proposal = torch.arange(len(candidates), device=labels.device) < len(proposals)
    return Samples(*(each[numbers] for each in (candidates, labels, objects, matched, is_proposal)))
