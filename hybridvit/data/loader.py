"""Batches from worker processes: the same ones with any number of workers, and an end to the workers in any case."""

import atexit
import functools
import logging
import math
import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from hybridvit.batch import BadImage, Batch, Patch, Sample
from hybridvit.child import end_with_parent
from hybridvit.data.order import EvalOrder, SampleKey, TrainOrder
from hybridvit.data.pixels import put
from hybridvit.data.samples import Samples
from hybridvit.data.seeding import generators_kept
from hybridvit.errors import DatasetError, HybridViTError, ImageDecodeError, SourceFault, UsageError, first_line
from hybridvit.import_path import without_current_folder
from hybridvit.main_module import refuse_at_import, refused, runs_again

logger = logging.getLogger(__name__)
MOST_BAD = 0.01
"""The share of undecodable files above which training with on_bad_image="skip" ends."""

StartMethod = Literal["fork", "spawn", "forkserver"]


Collate = Callable[[list[Sample]], Batch]
"""A batch of samples that all have an image."""


def stacked(samples: Sequence[Sample]) -> Batch:
    """Images of one size, and targets that `default_collate` makes one tensor, or one collection of tensors, of."""
    return Batch(
        _stacked_images(samples),
        default_collate([sample.target for sample in samples]),
        torch.tensor([sample.number for sample in samples], dtype=torch.long),
        tuple(sample.frame for sample in samples),
    )


def padded_images(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Normalised images (c h w) of their own sizes as one batch: zeros, the mean colour, to the right and below.

    The sides of the batch are the largest, rounded up to a multiple of 32; images of one size stay as they are.
    """
    if len({image.shape for image in images}) == 1:
        return torch.stack(list(images))
    assert all(image.is_floating_point() for image in images), "the mean colour is 0 in normalised images alone"
    height, width = (-(-max(image.shape[axis] for image in images) // 32) * 32 for axis in (1, 2))
    batch = images[0].new_zeros(len(images), len(images[0]), height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


def _stacked_images(samples: Sequence[Sample]) -> torch.Tensor:
    """In a worker, into memory the main process shares; bytes as they lie, h w c, so that nothing is reordered."""
    images = [sample.image for sample in samples if sample.image is not None]
    if images[0].dtype == torch.uint8:
        return default_collate([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # b h w c -> b c h w
    return default_collate(images)


class _Patches(NamedTuple):
    """The patches of a batch, their values one after the other: each tensor that is sent costs a file descriptor."""

    places: tuple[tuple[int, int, int, tuple[int, ...]], ...]  # image, top, left, shape
    values: torch.Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "_Patches | None":
        found = [(number, sample.patch) for number, sample in enumerate(samples) if sample.patch is not None]
        if not found:
            return None
        places = tuple((number, patch.top, patch.left, tuple(patch.values.shape)) for number, patch in found)
        return cls(places, torch.cat([patch.values.flatten() for _, patch in found]))

    def put_into(self, images: torch.Tensor) -> None:
        parts = self.values.split([math.prod(shape) for *_, shape in self.places])
        for (number, top, left, shape), values in zip(self.places, parts, strict=True):
            put(images[number], Patch(top, left, values.view(shape)))


class _Fetched(NamedTuple):
    """A batch on its way from the worker, with the files that failed."""

    batch: Batch
    bad: tuple[BadImage, ...]
    fault: str = ""
    patches: _Patches | None = None


class Loader:
    """Iterates over `Batch`es; made by `make_train_loader` and `make_eval_loader`.

    One pass at a time: a new `iter()` ends the one before. Workers start at `iter()`, not at the first batch, so that
    a caller can have them started before it has threads of its own; `close()` ends them, and so does the interpreter's
    exit. They ignore SIGINT and SIGTERM: whoever started them decides when they end.

    Iterating raises `SourceFault` where the source cannot be read, `ImageDecodeError` at the first bad file, or where
    the data set tolerates those, logs each once and raises `DatasetError` when a training set has more than 1 % of
    them; `DatasetError` too where a worker is lost, `UsageError` where the script that starts it is not ready for one
    (main_module.py).
    """

    def __init__(self, data: Samples, loader: DataLoader[Sample], *, layout: torch.memory_format, pin: bool) -> None:
        self.data = data
        self._layout, self._pin = layout, pin
        self.bad_images: dict[str, str] = {}
        """Path -> message of all undecodable files met so far."""
        self.num_used = 0
        """Samples given out in the current or last pass."""
        self.num_total = 0
        """Samples of the current or last pass, those left out included."""
        self.workers: set[BaseProcess] = set()
        """The processes that decode."""
        self._loader: DataLoader[Sample] | None = loader
        self._fetched: Iterator[_Fetched] = iter(())
        self._pass = 0
        _open_loaders.add(self)

    def __len__(self) -> int:
        """Batches in one pass; with bad files left out of an evaluation, at most."""
        return len(self._loader) if self._loader is not None else 0

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            raise ValueError("This loader is closed. Make a new one.")
        self.num_used = self.num_total = 0
        self._pass += 1
        if self._loader.num_workers:
            refuse_at_import()
        before = set(multiprocessing.active_children())
        try:
            with _signals_held(), without_current_folder():
                self._fetched = iter(self._loader)
        except (EOFError, ConnectionError) as error:  # it broke off before there was anything to ask for a reason
            raise DatasetError(
                f"A process that loads images ended as it started: {first_line(error)}. What it printed tells why. If "
                f"it was that the script is imported there: {runs_again()}"
            ) from error
        self.workers |= set(multiprocessing.active_children()) - before
        return self._batches(self._pass)

    def close(self) -> None:
        """End the worker processes. Harmless if there are none or if it was called before."""
        self._pass += 1
        fetched, self._fetched, self._loader = self._fetched, iter(()), None
        self.workers.clear()
        # Asked for by a private name (torch 2.14 has no public one): a traceback kept somewhere would keep the
        # iterator, and with it the workers, alive.
        if isinstance(fetched, _MultiProcessingDataLoaderIter):
            fetched._shutdown_workers()

    def _batches(self, own_pass: int) -> Iterator[Batch]:
        while own_pass == self._pass:
            try:
                batch, bad, fault, patches = next(self._fetched)
            except StopIteration:
                return
            except (RuntimeError, EOFError, ConnectionError) as error:
                if lost := lost_worker(error):
                    raise lost from error
                raise
            if fault:
                raise SourceFault(fault)
            self._judge(bad)
            self.num_total += len(batch.samples) + (0 if self.data.training else len(bad))
            self.num_used += len(batch.samples)
            if len(batch.samples):
                yield self._finished(batch, patches)

    def _finished(self, batch: Batch, patches: _Patches | None) -> Batch:
        """With numbers in place of bytes."""
        if batch.inputs.dtype != torch.uint8:
            return batch
        assert self.data.normalisation is not None, "images of bytes, and nothing to make numbers of them"
        images = self.data.normalisation(batch.inputs, layout=self._layout, pin=self._pin)
        if patches is not None:
            patches.put_into(images)
        return batch._replace(inputs=images)

    def _judge(self, bad: tuple[BadImage, ...]) -> None:
        for path, message in bad:
            if not self.data.tolerates_bad:
                raise ImageDecodeError(
                    f"{message} Or leave such files out: --data.on_bad_image skip for train, --on_bad_image skip for "
                    "evaluate."
                )
            if path not in self.bad_images:
                self.bad_images[path] = message
                logger.warning("left out: %s", message)
        if self.data.training and len(self.bad_images) > MOST_BAD * len(self.data):
            raise DatasetError(
                f"{len(self.bad_images)} of {len(self.data)} training images cannot be decoded, and more than "
                f"{MOST_BAD:.0%} is taken for a fault of the whole set, not of single files. The last one: {message}"
            )


def lost_worker(error: Exception) -> HybridViTError | None:
    """The explanation of an exception that means: a worker process is gone; None if it means something else.

    torch raises it wherever the main thread happens to be, so a training loop has to ask too, not only the loader.
    """
    workers = [worker for loader in list(_open_loaders) for worker in loader.workers]
    # A broken connection is noticed a moment before the end of the process behind it.
    patience_s = 1.0 if isinstance(error, EOFError | ConnectionError) else 0.0
    if not (workers and multiprocessing.connection.wait([worker.sentinel for worker in workers], patience_s)):
        return None
    if (unguarded := refused(workers)) is not None:
        return unguarded
    reason = str(error).split("\n")[0].rstrip(". ") or "its connection broke"
    return DatasetError(
        f"A process that loads images ended: {reason}. Most often memory or shared memory (/dev/shm) is full: use "
        "fewer workers, workers=0, or a container with more of it."
    )


_open_loaders: "weakref.WeakSet[Loader]" = weakref.WeakSet()


@atexit.register  # runs before multiprocessing's own exit, which would wait for ever for workers that ignore SIGTERM
def _close_all() -> None:
    for loader in list(_open_loaders):
        loader.close()


def make_train_loader(
    data: Samples,
    *,
    collate: Collate = stacked,
    batch_size: int,
    num_steps: int,
    first_step: int = 0,
    accumulate: int = 1,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    workers: int = 0,
    layout: torch.memory_format = torch.contiguous_format,
    pin_memory: bool = False,
    start_method: StartMethod | None = None,
) -> Loader:
    """The micro-batches of one process in the order of `TrainOrder` (which see), across epochs, in a single pass.

    `workers` is the number of processes that decode (0: this one); `layout` is that of the images in memory;
    `pin_memory` speeds up copies to CUDA. Raises as `TrainOrder` does.
    """
    order = TrainOrder(
        len(data),
        batch_size=batch_size,
        num_steps=num_steps,
        first_step=first_step,
        accumulate=accumulate,
        rank=rank,
        world_size=world_size,
        seed=seed,
        blocks=data.blocks,
        balanced_labels=data.balanced_labels,
    )
    return _make(data, order, collate, workers=workers, layout=layout, pin_memory=pin_memory, start_method=start_method)


def make_eval_loader(
    data: Samples,
    *,
    collate: Collate = stacked,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    layout: torch.memory_format = torch.contiguous_format,
    pin_memory: bool = False,
    start_method: StartMethod | None = None,
) -> Loader:
    """Every sample once over all processes, unpadded; passes can be repeated and keep their workers.

    Images of a set whose sizes differ come one by one, whatever `batch_size` is.
    After a pass, `num_used` of `num_total` samples were given out by this process. Processes can differ by a batch:
    run the bare module, not its DDP wrapper, and reduce once at the end.
    """
    at_once = 1 if data.sizes_differ else batch_size
    order = EvalOrder(len(data), batch_size=at_once, rank=rank, world_size=world_size)
    return _make(data, order, collate, workers=workers, layout=layout, pin_memory=pin_memory, start_method=start_method)


def _make(
    data: Samples,
    order: TrainOrder | EvalOrder,
    collate: Collate,
    *,
    workers: int,
    layout: torch.memory_format,
    pin_memory: bool,
    start_method: StartMethod | None,
) -> Loader:
    if workers < 0:
        raise UsageError(f"The number of workers is {workers}, but it must be at least 0 (0: this process decodes).")
    with warnings.catch_warnings():
        # More processes than cores is what was asked for, and what a recipe for another machine has.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            _Draws(data),
            batch_sampler=order,
            num_workers=workers,
            collate_fn=functools.partial(_fetched, collate),
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_parent,
            multiprocessing_context=start_method if workers else None,
            # Its own generator: else starting a pass would draw from the global one.
            generator=torch.Generator(),
            persistent_workers=workers > 0,
        )
    return Loader(data, loader, layout=layout, pin=pin_memory)


class _Draws(Dataset[Sample]):
    """The data set as the sampler asks for it: by epoch and index."""

    def __init__(self, data: Samples) -> None:
        self._data = data
        self._streams: list[Any] = []  # connections, which are of another class on Windows

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is sent to a worker that is not forked: in a stream of its own, from a thread.

        With the process itself it would have to fit into its pipe: CPython (to 3.14) waits for ever to write more than
        that to a process that ended before it read, for it holds the end for reading open.
        """
        data = ForkingPickler.dumps(self._data)
        theirs, ours = multiprocessing.Pipe(duplex=False)
        self._streams.append(theirs)  # open until the worker has it
        threading.Thread(target=_send, args=(ours, data), name="samples-to-worker", daemon=True).start()
        return _received, (theirs,)

    def __getitems__(self, keys: list[SampleKey]) -> list[Sample]:
        """What torch asks for where there is a way: a batch at once."""
        with generators_kept():
            return [self._data.draw(*key) for key in keys]


def _send(stream: Connection, data: Any) -> None:
    with stream, suppress(OSError):  # the worker is gone, and the loader, which will say so
        stream.send_bytes(data)


def _received(stream: Connection) -> _Draws:
    with stream:
        return _Draws(stream.recv())


def _fetched(collate: Collate, samples: list[Sample]) -> _Fetched:
    kept = [sample for sample in samples if sample.image is not None]
    batch = collate(kept) if kept else Batch(torch.empty(0), None, torch.empty(0, dtype=torch.long))
    fault = next((sample.fault for sample in samples if sample.fault), "")
    return _Fetched(batch, tuple(bad for sample in samples for bad in sample.bad), fault, _Patches.of(kept))


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep SIGINT and SIGTERM waiting while workers start: they inherit this, and have no moment to be ended by one."""
    if sys.platform == "win32":  # has no signal masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
