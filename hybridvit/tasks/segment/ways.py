"""Other ways to ask a model than once for the whole picture: in several sizes, or part by part."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridvit.batch import Batch
from hybridvit.card import MIN_SIDE_PX, ModelCard
from hybridvit.evaluate.run import Answerer
from hybridvit.task import Outputs
from hybridvit.tasks.segment.result import ANSWER

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of the size in which the whole picture is shown


def multi_scale(answer: Answerer, card: ModelCard) -> Answerer:
    """The mean of the probabilities that a picture gets in six sizes, each mirrored too; as logits, their logarithm.

    All sizes are made of the input, which the published runs make of the picture.
    """

    def answer_all(batch: Batch) -> Outputs:
        size = batch.inputs.shape[2:]
        total: Tensor | None = None
        for factor in FACTORS:
            sides = [max(MIN_SIDE_PX, round(factor * side)) for side in size]
            shown = F.interpolate(batch.inputs, size=sides, mode="bilinear", align_corners=False)
            for mirrored in (False, True):
                logits = _logits(answer, batch, shown.flip(3) if mirrored else shown)
                logits = logits.flip(3) if mirrored else logits
                found = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(1)
                total = found if total is None else total.add_(found)
        assert total is not None
        return {ANSWER: total.div_(2 * len(FACTORS)).log_()}

    return answer_all


def slide(answer: Answerer, card: ModelCard) -> Answerer:
    """The mean of the logits of overlapping parts, each of the size that the model was trained on, two thirds apart.

    The last part of a row ends at the border. Memory holds one part at a time, and the logits of one picture.
    """
    crop = card.preprocessing.image_size

    def answer_parts(batch: Batch) -> Outputs:
        height, width = batch.inputs.shape[2:]
        total, counts = torch.empty(0), torch.zeros(height, width)
        for top in places(height, crop[0]):
            for left in places(width, crop[1]):
                rows, columns = slice(top, min(top + crop[0], height)), slice(left, min(left + crop[1], width))
                logits = _logits(answer, batch, batch.inputs[:, :, rows, columns]).cpu()
                if not total.numel():
                    total = logits.new_zeros(*logits.shape[:2], height, width)
                total[:, :, rows, columns] += logits
                counts[rows, columns] += 1
        return {ANSWER: total.div_(counts)}

    return answer_parts


def places(side: int, crop: int) -> Iterator[int]:
    """Where the parts of a side begin."""
    stride = max(1, 2 * crop // 3)
    last = max(0, side - crop)
    yield from range(0, last, stride)
    yield last


def _logits(answer: Answerer, batch: Batch, inputs: Tensor) -> Tensor:
    return torch.as_tensor(answer(batch._replace(inputs=inputs))[ANSWER]).float()


WAYS: dict[str, Callable[[Answerer, ModelCard], Answerer]] = {"multi_scale": multi_scale, "slide": slide}
