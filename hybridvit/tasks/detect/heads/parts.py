"""What is said of a region: its class, a better box, and which of its pixels belong to the object."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import generalized_box_iou_loss, roi_align

from hybridvit.models.conv_norm import ConvNormReLU
from hybridvit.tasks.detect.heads.boxes import Weights, decoded, encoded
from hybridvit.tasks.detect.heads.config import FasterRCNNConfig
from hybridvit.tasks.detect.heads.sampling import IGNORED, Samples, Target, has_object

BOX_CELLS, MASK_CELLS = 7, 14  # a side, that are pooled of a region
CONVOLUTIONS = 4  # of a mask head, and of a box head with convolutions
GIOU_WEIGHT = 10.0


class BoxHead(nn.Module):
    """Logits of the classes, the last of which is "none", and what `decoded` makes a box of, for each class or for all.

    `weights` scale the four numbers of a box: the later the stage, the smaller the changes that it is about.
    """

    def __init__(self, config: FasterRCNNConfig, num_classes: int, weights: Weights) -> None:
        super().__init__()
        self.num_classes, self.weights = num_classes, weights
        self.class_agnostic, self.box_loss, self.beta = config.class_agnostic, config.box_loss, config.beta
        self.features = _features(config)
        self.classes = nn.Linear(config.fc_width, num_classes + 1)
        self.boxes = nn.Linear(config.fc_width, 4 * (1 if config.class_agnostic else num_classes))
        for layer, std in ((self.classes, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Float[Tensor, "n c s s"]) -> Float[Tensor, "n classes_and_boxes"]:
        """Both side by side, in float32."""
        x = self.features(pooled)
        return torch.cat((self.classes(x).float(), self.boxes(x).float()), dim=1)

    def split(self, answers: Float[Tensor, "*any both"]) -> tuple[Float[Tensor, "*any k"], Float[Tensor, "*any c 4"]]:
        """The logits, and the numbers of the boxes."""
        sizes = [self.classes.out_features, self.boxes.out_features]
        logits, deltas = answers.split(sizes, dim=-1)
        return logits, deltas.unflatten(-1, (-1, 4))

    def of_class(self, deltas: Float[Tensor, "*any c 4"], labels: Tensor) -> Float[Tensor, "*any 4"]:
        """What belongs to one class of each region."""
        if self.class_agnostic:
            return deltas[..., 0, :]
        return deltas.take_along_dim(labels[..., None, None], dim=-2)[..., 0, :]

    def losses(self, answers: Float[Tensor, "n both"], samples: Sequence[Samples]) -> dict[str, Tensor]:
        """Cross-entropy over all samples, and the distance of the boxes of those with an object."""
        logits, deltas = self.split(answers)
        labels, boxes = (torch.cat([getattr(each, name) for each in samples]) for name in ("labels", "boxes"))
        count = (labels != IGNORED).sum().clamp(min=1)
        classes = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / count
        found = has_object(labels, self.num_classes)
        truth, boxes = torch.cat([each.truth for each in samples])[found], boxes[found]
        moved = self.of_class(deltas[found], labels[found])
        if self.box_loss == "giou":
            distance = GIOU_WEIGHT * generalized_box_iou_loss(decoded(moved, boxes, self.weights), truth, "sum")
        else:
            distance = F.smooth_l1_loss(moved, encoded(boxes, truth, self.weights), beta=self.beta, reduction="sum")
        return {"loss_classifier": classes, "loss_box_reg": distance / count}


def _features(config: FasterRCNNConfig) -> nn.Module:
    cells = BOX_CELLS * BOX_CELLS
    if config.box_head == "2fc":
        return TwoMLPHead(config.pyramid_channels * cells, config.fc_width)
    width = config.conv_channels
    convolutions = [ConvNormReLU(width if i else config.pyramid_channels, width) for i in range(CONVOLUTIONS)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(width * cells, config.fc_width), nn.ReLU())


class MaskHead(nn.Module):
    """Logits of 28 x 28 pixels of a region, for each class."""

    def __init__(self, config: FasterRCNNConfig, num_classes: int) -> None:
        super().__init__()
        self.aligned, width = config.aligned, config.conv_channels
        self.features = MaskRCNNHeads(config.pyramid_channels, [width] * CONVOLUTIONS, 1)
        self.predictor = MaskRCNNPredictor(width, width, num_classes)

    def forward(self, pooled: Float[Tensor, "n c s s"]) -> Float[Tensor, "n k m m"]:
        return self.predictor(self.features(pooled)).float()

    def losses(self, logits: Float[Tensor, "n k m m"], found: Sequence[Samples], targets: Sequence[Target]) -> Tensor:
        """Binary cross-entropy of the mask of the right class; all samples are of objects."""
        labels = torch.cat([each.labels for each in found])
        if not len(labels):
            return logits.sum() * 0
        size = logits.shape[-1]
        truth = [self._truth(each, target["masks"], size) for each, target in zip(found, targets, strict=True)]
        numbers = torch.arange(len(labels), device=labels.device)
        return F.binary_cross_entropy_with_logits(logits[numbers, labels], torch.cat(truth))

    def _truth(self, samples: Samples, masks: Tensor, size: int) -> Float[Tensor, "n m m"]:
        """The part of the object's mask that lies in each sample, its pixels averaged."""
        regions = torch.cat((samples.objects[:, None].to(samples.boxes), samples.boxes), dim=1)
        whole = masks[:, None].to(samples.boxes)
        return roi_align(whole, regions, (size, size), 1.0, -1, self.aligned)[:, 0]
