"""From a head's answers to a list of detections."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from hybridvit.tasks.detect.dino.boxes import corners
from hybridvit.tasks.detect.dino.outputs import DINOOutputs
from hybridvit.tasks.detect.dino.proposals import rows


class Detections(NamedTuple):
    """The best detections of each image, best first."""

    scores: Float[Tensor, "b most"]
    labels: Int[Tensor, "b most"]
    boxes: Float[Tensor, "b most 4"]  # left, top, right, bottom, in shares of the image


def best_detections(outputs: DINOOutputs, most: int) -> Detections:
    """The `most` highest scores of queries and classes together, or all if there are fewer. Nothing is suppressed."""
    scores = outputs.matching.logits[-1].sigmoid()  # b q classes
    num_queries, num_classes = scores.shape[1:]
    best = scores.flatten(1).topk(min(most, num_queries * num_classes), dim=1)
    queries = best.indices // num_classes
    boxes = rows(corners(outputs.matching.boxes[-1]), queries)
    return Detections(best.values, best.indices % num_classes, boxes)
