"""Contrastive denoising: copies of the objects with noise, which the decoder is to put right (DINO, section 3.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hybridvit.tasks.detect.dino.boxes import Objects, centred, corners, logit
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.outputs import DenoisingLayout


class Draws(NamedTuple):
    """The random numbers of the copies, in the order in which they are drawn.

    Copies are numbered half group by half group (the positives of group 0, its negatives, those of group 1 ...), in
    each by the objects of the batch: those of image 0, then those of image 1.
    """

    choice: Float[Tensor, "copies"]  # from 0 to 1: low ones get another label
    labels: Int[Tensor, "chosen"]  # of those, in the order of the copies; may be the right one
    signs: Int[Tensor, "copies 4"]  # 0 or 1 for each coordinate of the corners: it becomes smaller or larger
    parts: Float[Tensor, "copies 4"]  # from 0 to 1: how far each moves


class Copies(NamedTuple):
    """The denoising queries; empty slots have no content, and the middle half of the image as their box."""

    contents: Float[Tensor, "b q c"]
    logits: Float[Tensor, "b q 4"]  # of their boxes


class Denoising(nn.Module):
    """Makes the denoising queries of a batch. Its table has one row more than there are classes: it stays unused."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = nn.Embedding(config.num_classes + 1, config.dim)

    def layout(self, objects: Sequence[Objects]) -> DenoisingLayout | None:
        """As many groups as fit into `denoising_queries` of the fullest image; None where there is nothing to copy."""
        slots = max(len(each.labels) for each in objects)
        if not slots or not self.config.denoising_queries:
            return None
        return DenoisingLayout(max(1, self.config.denoising_queries // slots), slots)

    def draw(self, objects: Sequence[Objects], layout: DenoisingLayout) -> Draws:
        """From torch's global generator of the CPU: the same on every device."""
        copies = 2 * layout.groups * sum(len(each.labels) for each in objects)
        choice = torch.rand(copies, device="cpu")
        chosen = int(_relabelled(choice, self.config).sum())
        labels = torch.randint(self.config.num_classes, (chosen,), device="cpu")
        signs = torch.randint(2, (copies, 4), device="cpu")
        return Draws(choice, labels, signs, torch.rand(copies, 4, device="cpu"))

    def forward(self, objects: Sequence[Objects], layout: DenoisingLayout, draws: Draws) -> Copies:
        """The copies in their slots, with the noise of `draws`."""
        device = self.labels.weight.device
        draws = Draws(*(each.to(device) for each in draws))
        halves = 2 * layout.groups
        counts = [len(each.labels) for each in objects]
        image = torch.cat([torch.full((count,), number, device=device) for number, count in enumerate(counts)])
        slot = torch.cat([torch.arange(count, device=device) for count in counts])
        slots = (layout.slots * torch.arange(halves, device=device)[:, None] + slot).flatten()
        where = image.repeat(halves), slots  # of each copy
        labels = torch.cat([each.labels for each in objects]).repeat(halves)
        labels = labels.masked_scatter(_relabelled(draws.choice, self.config), draws.labels)
        boxes = torch.cat([each.boxes for each in objects]).repeat(halves, 1)
        is_negative = torch.arange(halves, device=device).remainder(2).repeat_interleave(len(slot))
        moved = _moved(boxes, draws, is_negative.bool(), self.config.box_noise)
        size = len(objects), layout.num_queries
        contents = boxes.new_zeros(*size, self.config.dim).index_put(where, self.labels(labels).to(boxes))
        return Copies(contents, boxes.new_zeros(*size, 4).index_put(where, logit(moved)))


def _relabelled(choice: Tensor, config: DINOConfig) -> Bool[Tensor, "copies"]:
    return choice < config.label_noise / 2


def _moved(boxes: Tensor, draws: Draws, is_negative: Tensor, noise: float) -> Tensor:
    """Boxes whose corners moved by up to half a side: those of negatives by up to a whole one, and at least by half.

    Corners that cross stay crossed.
    """
    distance = draws.parts + is_negative[:, None]
    step = boxes[:, 2:].repeat(1, 2) / 2 * noise
    shifted = corners(boxes) + (2 * draws.signs - 1) * distance * step
    return centred(shifted.clamp(0, 1))
