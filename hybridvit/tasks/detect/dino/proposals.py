"""The first of two stages: every token of the encoder proposes a box, and the best become the decoder's references."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.levels import Levels
from hybridvit.tasks.detect.dino.mlp import BoxHead, ClassHead, xavier_

FINEST_SIDE = 0.05  # of the boxes that the finest level proposes; twice that on the next, and so on
BORDER = 0.01  # from any side of the image: a proposal with a coordinate beyond is refused


class Proposals(NamedTuple):
    """What the places of the tokens propose."""

    logits: Float[Tensor, "b n 4"]  # before the sigmoid; infinite where refused
    kept: Bool[Tensor, "b n"]


class Selected(NamedTuple):
    """The best tokens of each image, best first."""

    tokens: Int[Tensor, "b q"]
    logits: Float[Tensor, "b q classes"]
    boxes: Float[Tensor, "b q 4"]


class TwoStage(nn.Module):
    """Scores every token, and turns its proposal into a box."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.project = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.class_head = ClassHead(config.dim, config.num_classes)
        self.box_head = BoxHead(config.dim)
        xavier_(self.project)

    def forward(self, memory: Float[Tensor, "b n c"], levels: Levels) -> Selected:
        """The tokens with the largest class logit.

        A token that is refused has features of zero and the box (1, 1, 1, 1), and stays in the running. Raises
        UsageError for maps with fewer tokens than there are queries.
        """
        if levels.num_tokens < self.num_queries:
            raise UsageError(
                f"The maps {', '.join(f'{height}x{width}' for height, width in levels.shapes)} have "
                f"{levels.num_tokens} places in all, but num_queries is {self.num_queries}. Use larger images, or at "
                f"most {levels.num_tokens} queries."
            )
        proposals = propose(levels)
        features = self.norm(self.project(memory.masked_fill(~proposals.kept[..., None], 0)))
        logits = self.class_head(features)
        boxes = (self.box_head(features) + proposals.logits).sigmoid()
        best = logits.amax(-1).topk(self.num_queries, dim=1).indices
        return Selected(best, rows(logits, best), rows(boxes, best))


def propose(levels: Levels) -> Proposals:
    """A square around the centre of each token, larger from level to level. Padding and the border are refused."""
    boxes = []
    for level, centres in enumerate(levels.centres()):
        sides = torch.full_like(centres, FINEST_SIDE * 2**level)
        boxes.append(torch.cat((centres, sides), dim=-1))
    shares = torch.cat(boxes, dim=1)
    kept = ((shares > BORDER) & (shares < 1 - BORDER)).all(-1)
    if levels.padding is not None:
        kept = kept & ~levels.padding
    return Proposals(torch.logit(shares).masked_fill(~kept[..., None], float("inf")), kept)


def rows(x: Float[Tensor, "b n c"], numbers: Int[Tensor, "b k"]) -> Float[Tensor, "b k c"]:
    """Of each image the rows of these numbers; `take_along_dim` would hold an ONNX file to the batch of its tracing."""
    return x.gather(1, numbers[..., None].expand(-1, -1, x.shape[-1]))
