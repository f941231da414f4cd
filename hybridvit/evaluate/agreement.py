"""Two answerers on the same samples: do they say the same?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridvit.card import ModelCard
from hybridvit.data.loader import Loader
from hybridvit.evaluate.run import Answerer, Judge, Watch, counted, ignore, of_all_ranks
from hybridvit.scores import Scores
from hybridvit.task import Outputs


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the second answers as the first does, over all samples."""

    first: Scores
    second: Scores  # with the examples, if any were asked for
    num_same: int  # pictures on which both give the same answer, as a person would say
    num_samples: int
    max_difference: float  # the largest difference of a number over the largest of the first's, whatever output


def agreement(
    first: Answerer,
    second: Answerer,
    task: Judge,
    loader: Loader,
    card: ModelCard,
    *,
    num_examples: int = 0,
    watch: Watch = ignore,
) -> Agreement:
    """Show every batch to both, once.

    Each process takes its own share, and what comes out is over all: every process calls it and gets the same. Raises
    as `evaluate`.
    """
    metrics = task.metric(card), task.metric(card, num_examples=num_examples)
    num_same = 0
    furthest: dict[str, np.ndarray] = {}  # by output: the largest difference, the largest number
    for number, batch in enumerate(loader, start=1):
        answers = first(batch), second(batch)
        for metric, outputs in zip(metrics, answers, strict=True):
            metric.update(outputs, batch)
        one, other = (arrays(outputs) for outputs in answers)
        for name, expected in one.items():
            largest = [np.abs(values).max(initial=0) for values in (expected - other[name], expected)]
            furthest[name] = np.fmax(furthest.get(name, 0.0), np.array(largest, float))
        pairs = zip(task.results(one, batch.frames, card), task.results(other, batch.frames, card), strict=True)
        num_same += sum(this.agrees(that) for this, that in pairs)
        watch(number, len(loader))
    num_samples, _ = counted(loader)
    shares = of_all_ranks((num_same, furthest))
    for _, found in shares:
        furthest |= {name: np.fmax(furthest.get(name, 0.0), values) for name, values in found.items()}
    return Agreement(
        first=metrics[0].compute(),
        second=metrics[1].compute(),
        num_same=sum(same for same, _ in shares),
        num_samples=num_samples,
        max_difference=max(float(difference / (scale or 1.0)) for difference, scale in furthest.values()),
    )


def arrays(outputs: Outputs) -> Outputs:
    """The outputs as NumPy arrays."""
    return {name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in outputs.items()}


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of 32-bit numbers in 32 bits on CUDA too, where convolutions otherwise round to 19."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
