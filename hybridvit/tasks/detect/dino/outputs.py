"""What a head answers. Named tuples, which wrappers of modules and torch.export take apart and put together."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Predictions(NamedTuple):
    """What layers say of each query."""

    logits: Float[Tensor, "layers b q classes"]  # a sigmoid each, no class for "none"
    boxes: Float[Tensor, "layers b q 4"]  # centre x, centre y, width, height, in shares of the image


class DenoisingLayout(NamedTuple):
    """Where the copies of objects stand among the denoising queries.

    Group after group; in each the slots of the positives, then those of the negatives, one per object of the fullest
    image. The slots that other images have too many stay empty.
    """

    groups: int
    slots: int  # of one half of a group

    @property
    def num_queries(self) -> int:
        return 2 * self.groups * self.slots

    def positives(self, device: torch.device) -> Int[Tensor, "groups slots"]:
        """The numbers of the queries that are to find their object again."""
        starts = 2 * self.slots * torch.arange(self.groups, device=device)
        return starts[:, None] + torch.arange(self.slots, device=device)

    def unseen(self, num_matching: int, device: torch.device) -> Bool[Tensor, "q q"]:
        """True where a query (row) must not see another (column); the denoising queries come first.

        A group sees itself and the matching queries. These see themselves alone, so that they answer as without.
        """
        group = torch.arange(self.num_queries, device=device) // (2 * self.slots)
        group = torch.cat((group, group.new_full((num_matching,), -1)))
        return (group[:, None] != group) & (group != -1)


class DINOOutputs(NamedTuple):
    """The answers of a head."""

    matching: Predictions  # of every layer of the decoder, first to last: the last one's are the head's answers
    proposed: Predictions  # of the encoder, which the matching queries began from: a single layer
    denoising: Predictions | None = None  # of every layer of the decoder; in training, where there are objects
    layout: DenoisingLayout | None = None  # of `denoising`
