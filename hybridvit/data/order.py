"""Which samples come when: every step's samples follow from (seed, step) alone, so a run can go on from any step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate as running_sum
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from hybridvit.data.seeding import generator
from hybridvit.errors import DatasetError, UsageError


class SampleKey(NamedTuple):
    """Sample `number` as epoch `epoch` shows it in optimizer step `step`."""

    epoch: int
    number: int
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A set cut into consecutive blocks of samples (shards), of which `window` are shuffled together.

    A set that is larger than the disk must be read block by block; the samples of one window then lie on it at once.
    """

    sizes: Sequence[int]  # samples in each block; they follow one another
    window: int

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UsageError(f"A window of {self.window} blocks holds no sample. Use 1 or more.")

    def order(self, seed: int, epoch: int) -> list[int]:
        """The blocks as epoch `epoch` reads them; every `window` of them are one window."""
        return torch.randperm(len(self.sizes), generator=generator("blocks", seed, epoch)).tolist()


def permutation(num_samples: int, *, seed: int, epoch: int, blocks: Blocks | None = None) -> Tensor:
    """The order of an epoch's samples, a function of the arguments alone.

    With blocks: the blocks in their order of that epoch, cut into windows; inside a window all samples are mixed.
    """
    if blocks is None:
        return torch.randperm(num_samples, generator=generator("order", seed, epoch))
    ends = list(running_sum(blocks.sizes))
    order = blocks.order(seed, epoch)
    parts = []
    for window, first in enumerate(range(0, len(order), blocks.window)):
        members = order[first : first + blocks.window]
        samples = torch.cat([torch.arange(ends[block] - blocks.sizes[block], ends[block]) for block in members])
        parts.append(samples[torch.randperm(len(samples), generator=generator("window", seed, epoch, window))])
    return torch.cat(parts)


def balanced_permutation(labels: Sequence[int], *, seed: int, epoch: int) -> Tensor:
    """As many samples as there are, equally many of each class: common ones draw lots, rare ones come several times.

    A sample comes again only when all of its class have come. A function of the arguments alone.
    """
    of = torch.as_tensor(labels)
    classes = of.unique()
    classes = classes[torch.randperm(len(classes), generator=generator("classes", seed, epoch))]  # who gets one more
    parts = []
    for place, label in enumerate(classes.tolist()):
        members, count = (of == label).nonzero().flatten(), (len(of) - place - 1) // len(classes) + 1
        rounds = range(-(-count // len(members)))
        orders = [torch.randperm(len(members), generator=generator("class", seed, epoch, label, k)) for k in rounds]
        parts.append(members[torch.cat(orders)[:count]])
    drawn = torch.cat(parts)
    return drawn[torch.randperm(len(drawn), generator=generator("order", seed, epoch))]


class TrainOrder(Sampler[list[SampleKey]]):
    """The micro-batches of one process, from optimizer step `first_step` up to `num_steps`, across epochs.

    Each epoch is a permutation f(seed, epoch), block by block where there are `blocks`, or with `balanced_labels` a
    draw of equally many of each class, cut into steps of batch_size * accumulate * world_size samples; what is left at
    its end is dropped. A step has the same samples however they are divided among processes and micro-batches, and
    every process gets equally many. `batch_size` is one process's micro-batch.

    Raises `DatasetError` if one step needs more samples than there are, `UsageError` for counts below 1.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        num_steps: int,
        first_step: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        blocks: Blocks | None = None,
        balanced_labels: Sequence[int] | None = None,
    ) -> None:
        _check_shard(batch_size, rank, world_size)
        if accumulate < 1:
            raise UsageError(f"accumulate is {accumulate}, but a step has at least 1 micro-batch.")
        if not 0 <= first_step <= num_steps:
            raise UsageError(f"first_step is {first_step}, but it must lie between 0 and num_steps ({num_steps}).")
        self.total_batch = batch_size * accumulate * world_size
        if num_samples < self.total_batch:
            raise DatasetError(
                f"One step takes {self.total_batch} samples ({batch_size} per micro-batch x {accumulate} micro-batches "
                f"x {world_size} processes), but the training set has {num_samples}. Use a total batch of at most "
                f"{num_samples}."
            )
        self.steps_per_epoch = num_samples // self.total_batch
        self.dropped_per_epoch = num_samples % self.total_batch
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._rank = rank
        self._world_size = world_size
        self._seed = seed
        self._blocks, self._labels = blocks, balanced_labels
        self._steps = range(first_step, num_steps)

    def __len__(self) -> int:
        """Micro-batches of this process."""
        return len(self._steps) * self._accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        permuted_epoch, samples = -1, torch.empty(0, dtype=torch.long)
        for step in self._steps:
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != permuted_epoch:
                permuted_epoch = epoch
                samples = self._samples_of(epoch)
            for micro_batch in range(self._accumulate):
                start = place * self.total_batch + (micro_batch * self._world_size + self._rank) * self._batch_size
                chosen = samples[start : start + self._batch_size].tolist()
                yield [SampleKey(epoch, index, step) for index in chosen]

    def _samples_of(self, epoch: int) -> Tensor:
        if self._labels is not None:
            return balanced_permutation(self._labels, seed=self._seed, epoch=epoch)
        return permutation(self._num_samples, seed=self._seed, epoch=epoch, blocks=self._blocks)


class EvalOrder(Sampler[list[SampleKey]]):
    """Every sample once, in order, over all processes: no padding, so some process may get a sample less or none."""

    def __init__(self, num_samples: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check_shard(batch_size, rank, world_size)
        self._indices = range(rank, num_samples, world_size)
        self._batch_size = batch_size

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-len(self._indices) // self._batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self._indices), self._batch_size):
            yield [SampleKey(0, index) for index in self._indices[start : start + self._batch_size]]


def _check_shard(batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}, but a batch needs at least one sample. Use 1 or more.")
    if not 0 <= rank < world_size:
        raise UsageError(f"rank is {rank}, but it must lie between 0 and world_size - 1 ({world_size - 1}).")
