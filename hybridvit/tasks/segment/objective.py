"""What a training on masks minimises: a cross-entropy over the pixels that have a class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.task import Moment, Objective
from hybridvit.tasks.segment.config import SegmentRecipe
from hybridvit.tasks.segment.masks import IGNORE


class SegmentObjective(Objective):
    """The mean over the labelled pixels of a micro-batch; of the auxiliary head, where there is one, in part."""

    def __init__(self, recipe: SegmentRecipe) -> None:
        self._weight = recipe.auxiliary_weight

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        answers = model(batch.inputs)
        if isinstance(answers, Tensor):
            return cross_entropy(answers, batch.targets)
        logits, auxiliary = answers
        main, beside = cross_entropy(logits, batch.targets), self._weight * cross_entropy(auxiliary, batch.targets)
        self.terms = {"loss_main": main, "loss_auxiliary": beside}
        return main + beside


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the pixels whose label is not IGNORE; 0, with a gradient, where all are.

    Shapes: b classes h w, and b h w.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / torch.count_nonzero(labels != IGNORE).clamp(min=1)
