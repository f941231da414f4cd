"""Which query is to answer for which object: the cheapest one-to-one assignment (DETR, section 3.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridvit.errors import NonFiniteError, UsageError
from hybridvit.tasks.detect.dino.boxes import Objects, generalised_iou
from hybridvit.tasks.detect.dino.outputs import Predictions

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


class Assignment(NamedTuple):
    """Pairs of a query and an object, in each layer the same number of an image."""

    images: Int[Tensor, "pairs"]
    queries: Int[Tensor, "layers pairs"]
    objects: Int[Tensor, "layers pairs"]  # over the batch: those of image 0, then those of image 1


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What counts how much in an assignment."""

    classes: float = 2.0
    l1: float = 5.0
    giou: float = 2.0

    def of(
        self, logits: Float[Tensor, "layers q classes"], boxes: Float[Tensor, "layers q 4"], objects: Objects
    ) -> Float[Tensor, "layers n q"]:
        """The cost of each query for each object of an image: what its losses would change."""
        chosen = logits.float()[..., objects.labels].mT  # layers n q
        share = chosen.sigmoid()
        as_class = FOCAL_ALPHA * (1 - share) ** FOCAL_GAMMA * -F.logsigmoid(chosen)
        as_none = (1 - FOCAL_ALPHA) * share**FOCAL_GAMMA * -F.logsigmoid(-chosen)
        boxes, truth = boxes[:, None], objects.boxes[:, None]  # layers 1 q 4, n 1 4
        distance = (boxes - truth).abs().sum(-1)
        return self.classes * (as_class - as_none) + self.l1 * distance - self.giou * generalised_iou(boxes, truth)


@torch.no_grad()
def match(predictions: Predictions, objects: Sequence[Objects], costs: Costs, names: Sequence[str] = ()) -> Assignment:
    """The cheapest assignment of queries to objects for each layer and image, where there are more objects to some.

    `names` are of the images, for messages. Raises NonFiniteError for costs that are not finite, and UsageError
    without SciPy.
    """
    solve = _solver()
    device = predictions.boxes.device
    images: list[Tensor] = []
    queries: list[Tensor] = []
    numbers: list[Tensor] = []
    before = 0
    for image, each in enumerate(objects):
        cost = costs.of(predictions.logits[:, image], predictions.boxes[:, image], each).cpu()
        if not cost.isfinite().all():
            raise NonFiniteError(
                f"The cost of assigning queries to the objects of {_name(image, names)} is not finite: a prediction or "
                "a box is NaN or infinite. Look at the boxes of this image, lower --optim.lr or set --optim.clip_norm."
            )
        pairs = torch.stack([torch.stack([*map(torch.as_tensor, solve(layer.numpy()))]) for layer in cost])
        numbers.append(before + pairs[:, 0])
        queries.append(pairs[:, 1])
        images.append(torch.full((pairs.shape[2],), image))
        before += len(each.labels)
    return Assignment(
        torch.cat(images).to(device), torch.cat(queries, dim=1).to(device), torch.cat(numbers, dim=1).to(device)
    )


def _name(image: int, names: Sequence[str]) -> str:
    return names[image] if names else f"image {image} of the batch"


def _solver() -> Callable[[Any], Any]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise UsageError(
            'Training DINO needs SciPy, which is not installed. Run: pip install "hybridvit[detection]".'
        ) from error
    return linear_sum_assignment
