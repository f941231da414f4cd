"""The end of a run: is the folded model as good as the trained one? Counted over all validation images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from hybridvit.data.loader import Loader
from hybridvit.folding.fold import fold
from hybridvit.folding.foldable import branch_by_branch
from hybridvit.training.classify.evaluate import Evaluation, Prediction, evaluate_loader
from hybridvit.training.record.progress import Watch

MOST_PICTURES = 12


@dataclass(frozen=True, kw_only=True)
class FinalCheck:
    """A trained model against its folded form, both in 32 bits. Metrics in percent."""

    before: float  # the headline metric, computed branch by branch
    after: float  # folded
    metrics: dict[str, float]  # all of them, folded; named as in metrics.csv
    same_answers: int  # images on which both forms name the same class
    num_images: int
    max_difference: float  # largest difference of a logit, relative to the largest logit
    evaluation: Evaluation  # folded; its predictions are left out
    wrong: tuple[Prediction, ...]  # the most confident first, at most 12
    right: tuple[Prediction, ...]  # the least confident first, at most 12


def check_folded(model: nn.Module, loader: Loader, *, watch: Watch | None = None) -> FinalCheck:
    """Fold a copy of a classifier and show every validation image to both.

    Each process takes its own share of the images, none twice, and the counts are over all: every process calls it
    and gets the same. One pass over the images. Raises FoldError, and as `evaluate_loader`.
    """
    was_training = model.training
    model.eval()
    try:
        with branch_by_branch(model), _full_precision():
            both = _BothForms(model, fold(model))
            evaluation = evaluate_loader(both, loader, keep_predictions=True, watch=watch)
    finally:
        model.train(was_training)
    return _over_all_ranks(evaluation, both)


class _BothForms(nn.Module):
    """Answers as the folded form, and notes how the other differs."""

    def __init__(self, unfolded: nn.Module, folded: nn.Module) -> None:
        super().__init__()
        self.unfolded, self.folded = unfolded, folded
        self.answers: list[Tensor] = []  # of the unfolded form
        self.difference = self.largest = torch.zeros(())

    def forward(self, images: Tensor) -> Tensor:
        expected, actual = self.unfolded(images).float(), self.folded(images).float()
        self.answers.append(expected.argmax(1))
        self.difference = torch.maximum(self.difference.to(actual.device), (expected - actual).abs().max())
        self.largest = torch.maximum(self.largest.to(actual.device), expected.abs().max())
        return actual


def _over_all_ranks(evaluation: Evaluation, both: _BothForms) -> FinalCheck:
    own = evaluation.predictions
    answers = torch.cat(both.answers).tolist() if both.answers else []
    wrong = [prediction for prediction in own if prediction.predicted != prediction.label]
    right = [prediction for prediction in own if prediction.predicted == prediction.label]
    share: dict[str, Any] = {
        "same": sum(answer == prediction.predicted for answer, prediction in zip(answers, own, strict=True)),
        "before": sum(answer == prediction.label for answer, prediction in zip(answers, own, strict=True)),
        "after": len(right),
        "difference": both.difference.item(),
        "largest": both.largest.item(),
        "wrong": sorted(wrong, key=_confidence, reverse=True)[:MOST_PICTURES],
        "right": sorted(right, key=_confidence)[:MOST_PICTURES],
    }
    shares = [share]
    if torch.distributed.is_initialized():
        shares = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(shares, share)
    num_images = evaluation.num_images
    metrics = {"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss}
    return FinalCheck(
        before=100 * sum(part["before"] for part in shares) / num_images,
        after=100 * sum(part["after"] for part in shares) / num_images,
        metrics=metrics,
        same_answers=sum(part["same"] for part in shares),
        num_images=num_images,
        max_difference=max(part["difference"] for part in shares) / max(part["largest"] for part in shares),
        evaluation=evaluation,
        wrong=tuple(sorted((answer for part in shares for answer in part["wrong"]), key=_confidence, reverse=True))[
            :MOST_PICTURES
        ],
        right=tuple(sorted((answer for part in shares for answer in part["right"]), key=_confidence))[:MOST_PICTURES],
    )


def _confidence(prediction: Prediction) -> float:
    return prediction.confidence


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of 32-bit numbers in 32 bits on CUDA too, where convolutions otherwise round to 19."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
