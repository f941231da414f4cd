"""What a DINO head is trained by: the same three losses for every layer, for what it began from, and for the copies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.distributed
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from hybridvit.tasks.detect.dino.boxes import Objects, generalised_iou
from hybridvit.tasks.detect.dino.matching import FOCAL_ALPHA, FOCAL_GAMMA, Assignment, Costs, match
from hybridvit.tasks.detect.dino.outputs import DenoisingLayout, DINOOutputs, Predictions

KINDS = ("class", "l1", "giou")


class Losses(NamedTuple):
    """The loss, and what it is made of."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]  # "giou_layer_5": before their weights, the same names in every step


@dataclass(frozen=True, kw_only=True)
class DINOLoss:
    """Focal loss of the classes, and for assigned queries L1 and generalised IoU of the box.

    Each is summed over the batch and divided by its number of objects, on the mean over all processes.
    """

    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    costs: Costs = field(default_factory=Costs)

    @property
    def weights(self) -> dict[str, float]:
        """By the first word of the name of a part."""
        return dict(zip(KINDS, (self.class_weight, self.l1_weight, self.giou_weight), strict=True))

    def __call__(self, outputs: DINOOutputs, objects: Sequence[Objects], names: Sequence[str] = ()) -> Losses:
        """The losses of a head's answers to images with these objects.

        `names` are of the images, for messages. Raises NonFiniteError, naming the image, where answers cannot be
        assigned because one is not finite, and UsageError without SciPy.
        """
        num_layers = len(outputs.matching.logits)
        together = Predictions(*(torch.cat(pair) for pair in zip(outputs.matching, outputs.proposed, strict=True)))
        whole = _concatenated(objects)
        num_objects = mean_over_processes(len(whole.labels), whole.boxes.device).clamp(min=1)
        places = [f"layer_{layer}" for layer in range(num_layers)]
        parts = _named(
            _losses(together, match(together, objects, self.costs, names), whole) / num_objects, [*places, "proposed"]
        )
        denoising = outputs.matching.boxes.new_zeros(len(KINDS), num_layers)
        if outputs.denoising is not None and outputs.layout is not None:
            known = assigned_copies(outputs.layout, objects, num_layers)
            denoising = _losses(outputs.denoising, known, whole) / (num_objects * outputs.layout.groups)
        parts |= _named(denoising, [f"denoising_{place}" for place in places])
        total = torch.stack([self.weights[name.partition("_")[0]] * part for name, part in parts.items()]).sum()
        return Losses(total, parts)


def assigned_copies(layout: DenoisingLayout, objects: Sequence[Objects], num_layers: int) -> Assignment:
    """Each positive copy with the object that it is of, in every layer alike."""
    device = objects[0].labels.device
    positives = layout.positives(device)
    images, queries, numbers = [], [], []
    before = 0
    for image, each in enumerate(objects):
        count = len(each.labels)
        images.append(torch.full((layout.groups * count,), image, device=device))
        queries.append(positives[:, :count].flatten())
        numbers.append(torch.arange(before, before + count, device=device).repeat(layout.groups))
        before += count
    in_each = torch.stack((torch.cat(queries), torch.cat(numbers)))[:, None].expand(-1, num_layers, -1)
    return Assignment(torch.cat(images), *in_each)


def mean_over_processes(count: int, device: torch.device) -> Float[Tensor, ""]:
    """The mean of each process's count, where several train together."""
    total = torch.tensor(float(count), device=device)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return total
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def _losses(predictions: Predictions, assignment: Assignment, whole: Objects) -> Float[Tensor, "kinds layers"]:
    """The sums over the batch. Queries without an object are to answer that it is no class."""
    layers: Int[Tensor, "layers 1"] = torch.arange(len(predictions.logits), device=whole.labels.device)[:, None]
    where = layers, assignment.images, assignment.queries  # each: layers pairs
    truth = torch.zeros_like(predictions.logits)
    truth[(*where, whole.labels[assignment.objects])] = 1
    focal = sigmoid_focal_loss(predictions.logits, truth, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA)
    boxes, wanted = predictions.boxes[where], whole.boxes[assignment.objects]  # layers pairs 4
    distance = (boxes - wanted).abs().sum((1, 2))
    return torch.stack((focal.sum((1, 2, 3)), distance, (1 - generalised_iou(boxes, wanted)).sum(1)))


def _concatenated(objects: Sequence[Objects]) -> Objects:
    return Objects(*(torch.cat(each) for each in zip(*objects, strict=True)))


def _named(losses: Float[Tensor, "kinds layers"], places: Sequence[str]) -> dict[str, Tensor]:
    return {
        f"{kind}_{place}": loss
        for kind, of_layers in zip(KINDS, losses, strict=True)
        for place, loss in zip(places, of_layers, strict=True)
    }
