"""Arithmetic of boxes: left, top, right, bottom in pixels of the input."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import nms

from hybridvit.tracing import is_recorded

LARGEST_GROWTH = math.log(1000 / 16)  # of a side, as a logarithm: an untrained head may ask for anything
Weights = tuple[float, float, float, float]


def encoded(boxes: Float[Tensor, "n 4"], truth: Float[Tensor, "n 4"], weights: Weights) -> Float[Tensor, "n 4"]:
    """What `decoded` makes `truth` of: shifts of the centre in shares of the sides, logarithms of their growth."""
    centre, side = _centre_and_side(boxes)
    true_centre, true_side = _centre_and_side(truth)
    deltas = torch.cat(((true_centre - centre) / side, (true_side / side).log()), dim=-1)
    return deltas * deltas.new_tensor(weights)


def decoded(
    deltas: Float[Tensor, "*#any 4"], boxes: Float[Tensor, "*#any 4"], weights: Weights
) -> Float[Tensor, "*any 4"]:
    """The boxes, shifted and grown."""
    centre, side = _centre_and_side(boxes)
    shift, growth = (deltas / deltas.new_tensor(weights)).chunk(2, dim=-1)
    centre = centre + shift * side
    half = growth.clamp(max=LARGEST_GROWTH).exp() * side / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def clipped(boxes: Float[Tensor, "*any 4"], sizes: Float[Tensor, "*#any 2"]) -> Float[Tensor, "*any 4"]:
    """The boxes cut to images of these heights and widths."""
    return torch.minimum(boxes.clamp(min=0), sizes.flip(-1).repeat(*[1] * (sizes.ndim - 1), 2))


def is_larger(boxes: Float[Tensor, "*any 4"], side: float) -> Bool[Tensor, "*any"]:
    """Whether both sides of a box have at least `side` pixels."""
    return (boxes[..., 2:] - boxes[..., :2] >= side).all(-1)


def share_inside(boxes: Float[Tensor, "n 4"], regions: Float[Tensor, "m 4"]) -> Float[Tensor, "n"]:
    """The largest share of each box that lies in a single region."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], regions[:, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[:, 2:])
    own = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return ((high - low).clamp(min=0).prod(-1) / own.clamp(min=1e-6)[:, None]).amax(1)


def keeps_shapes(x: Tensor) -> bool:
    """Whether the number of rows must not depend on values: in an exported graph, and without values at all."""
    return is_recorded(x) or x.is_meta


def kept(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n"], groups: Int[Tensor, "n"], *, overlap: float, most: int
) -> Int[Tensor, "{most}"]:
    """The numbers of the boxes that remain, best first, then n until there are `most`.

    Of boxes of a group whose IoU is more than `overlap` the best remains. A score below 0 stands for no box; such
    numbers may come last.
    """
    apart = boxes + (groups * (boxes.max() + 1))[:, None]  # so that boxes of two groups never meet
    if boxes.is_meta:  # where operations are counted: all remain, so that the rest is counted in full
        chosen = torch.arange(len(boxes), device=boxes.device)
    elif keeps_shapes(boxes):
        chosen = nms(apart, scores, overlap)
    else:
        present = (scores >= 0).nonzero()[:, 0]
        chosen = present[nms(apart[present], scores[present], overlap)]
    return torch.cat((chosen, chosen.new_full((most,), len(boxes))))[:most]


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes.chunk(2, dim=-1)
    return low + (high - low) / 2, high - low
