"""One pass of any answerer over any samples: what are its answers worth?"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.distributed
from torch import nn

from hybridvit.batch import Batch, Frame
from hybridvit.card import ModelCard
from hybridvit.data.loader import Loader, make_eval_loader
from hybridvit.data.samples import Samples
from hybridvit.errors import DatasetError, FoldError
from hybridvit.folding.fold import fold
from hybridvit.machine.memory import is_out_of_memory
from hybridvit.quantity import Quantity
from hybridvit.scores import Result, Scores
from hybridvit.task import Metric, Outputs, Task

logger = logging.getLogger(__name__)


class Judge(Protocol):
    """What says how good answers are: a task, or a comparison with other answers."""

    @property
    def headline(self) -> Quantity:
        """The number that decides."""

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        """What takes in answers."""

    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: ModelCard, *, most: int | None = None
    ) -> Sequence[Result]:
        """The answers to single pictures."""


Answerer = Callable[[Batch], Outputs]
Watch = Callable[[int, int], None]
"""Told how many of how many batches are done."""
Share = TypeVar("Share")


def ignore(done: int, total: int) -> None:
    """The watch of those who do not look."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found on a set of samples."""

    scores: Scores
    num_samples: int
    num_skipped: int  # files that could not be decoded, and count neither way
    seconds: float


def evaluate(
    answer: Answerer, task: Judge, loader: Loader, card: ModelCard, *, num_examples: int = 0, watch: Watch = ignore
) -> Evaluation:
    """Judge the answers to all batches of an evaluation loader.

    Each process gives its own share of the samples, none twice; the scores are over all shares. Raises DatasetError if
    there is no sample; ImageDecodeError for a bad file, unless the samples tolerate those.
    """
    metric = task.metric(card, num_examples=num_examples)
    began = time.perf_counter()
    for number, batch in enumerate(loader, start=1):
        metric.update(answer(batch), batch)
        watch(number, len(loader))
    num_samples, num_skipped = counted(loader)
    return Evaluation(
        scores=metric.compute(),
        num_samples=num_samples,
        num_skipped=num_skipped,
        seconds=time.perf_counter() - began,
    )


def counted(loader: Loader) -> tuple[int, int]:
    """Samples given out in the last pass and those left out, over all processes; DatasetError if there was none."""
    shares = of_all_ranks((loader.num_used, loader.num_total - loader.num_used))
    num_used, num_skipped = (sum(counts) for counts in zip(*shares, strict=True))
    if not num_used:
        raise DatasetError("There is no image to evaluate on. Check the folder of the validation images.")
    return num_used, num_skipped


def of_all_ranks(share: Share) -> list[Share]:
    """What each process gives, in the order of their ranks; every process calls it and gets the same."""
    if not torch.distributed.is_initialized():
        return [share]
    shares = [share] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, share)
    return shares


def evaluate_model(
    model: nn.Module,
    samples: Samples,
    task: Task,
    card: ModelCard,
    *,
    batch_size: int = 64,
    workers: int = 0,
    num_examples: int = 0,
) -> Evaluation:
    """Judge a PyTorch model, wherever it lies, on samples; see `evaluate`."""
    loader = make_eval_loader(samples, collate=task.collate, batch_size=batch_size, workers=workers)
    try:
        with answering(model, task) as answer:
            return evaluate(answer, task, loader, card, num_examples=num_examples)
    finally:
        loader.close()


@contextmanager
def answering(model: nn.Module, task: Task) -> Iterator[Answerer]:
    """The model, wherever it lies, as an answerer; within the context it is in eval mode and records no gradient."""
    with _in_eval_mode(model), torch.no_grad():
        yield _ModelAnswers(model, task)


def ready(model: nn.Module) -> nn.Module:
    """What answers fastest: the folded form, or the model itself where there is no exact one."""
    with _in_eval_mode(model):
        try:
            return fold(model)
        except FoldError:
            return model


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _ModelAnswers:
    """A batch that memory does not hold is shared out, and so are those after it.

    Images do not depend on one another in eval mode, so this changes no answer by more than its last bits.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        self._model, self._task = model, task
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._layout = torch.channels_last if _is_channels_last(model) else torch.contiguous_format
        self._largest: int | None = None

    def __call__(self, batch: Batch) -> Outputs:
        images = batch.inputs.to(self._device, self._dtype, memory_format=self._layout, non_blocking=True)
        while True:
            size = min(self._largest or len(images), len(images))
            try:
                parts = [self._task.forward(self._model, part) for part in images.split(size)]
                return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            if images.device.type == "cuda":
                torch.cuda.empty_cache()
            self._largest = size // 2
            logger.warning(
                "A batch of %d images does not fit into memory for evaluation: going on with %d.", size, self._largest
            )


def _is_channels_last(model: nn.Module) -> bool:
    """Whether the kernels lie channels-last, so that images should too."""
    kernels = (parameter for parameter in model.parameters() if parameter.ndim == 4)
    return any(
        kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous() for kernel in kernels
    )
