"""One function over many items in other processes, with bounded memory, past items that end their process."""

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import TypeVar

from hybridvit.child import end_with_parent
from hybridvit.import_path import without_current_folder
from hybridvit.main_module import refuse_at_import, refused

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 16  # items sent at once: enough that sending costs nothing, few enough to look at again one by one
_WAITING = 4  # chunks per process on their way; more would only fill the memory


def in_processes(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    lost: Callable[[Item], Result],
) -> Iterator[Result]:
    """`work` of every item, in any order; `lost(item)` for an item that ended its process (no memory, a crash).

    0 workers compute here. `work` is importable, items and results can be pickled; what `work` raises ends it all.
    Warnings of `work` are not shown. Raises UsageError where a script is not ready for processes (main_module.py).
    """
    if workers == 0:
        for item in items:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = work(item)
            yield result
        return
    refuse_at_import()
    source = iter(items)
    chunks = iter(lambda: list(islice(source, CHUNK)), [])
    started = set[BaseProcess]()
    while suspects := (yield from _until_broken(work, chunks, workers, started)):
        if (reason := refused(started)) is not None:
            raise reason
        yield from _one_by_one(work, suspects, lost)


def _until_broken(
    work: Callable[[Item], Result], chunks: Iterator[list[Item]], workers: int, started: set[BaseProcess]
) -> Generator[Result, None, list[Item]]:
    """Results; at the end the items that were under way when a process ended, or none when all are done.

    The processes are added to `started`, which keeps their exit codes.
    """
    pending: dict[Future[list[Result]], list[Item]] = {}
    others = set(multiprocessing.active_children())
    pool = _pool(workers)
    try:
        more = True
        while more or pending:
            while more and len(pending) < _WAITING * workers:
                chunk = next(chunks, [])
                more = bool(chunk)
                if chunk:
                    try:
                        pending[_submit(pool, work, chunk)] = chunk
                    except BrokenProcessPool:
                        return [item for each in (*pending.values(), chunk) for item in each]
                    started.update(set(multiprocessing.active_children()) - others)
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                try:
                    results = future.result()
                except BrokenProcessPool:
                    continue  # stays among the pending, as do the others: all break together
                del pending[future]
                yield from results
            if any(isinstance(future.exception(), BrokenProcessPool) for future in pending if future.done()):
                wait(pending)
                for future in [future for future in pending if future.exception() is None]:
                    del pending[future]
                    yield from future.result()
                return [item for each in pending.values() for item in each]
        return []
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(work: Callable[[Item], Result], items: list[Item], lost: Callable[[Item], Result]) -> Iterator[Result]:
    """In one process at a time, so that the item which ends it is known."""
    left = iter(items)
    broken = True
    while broken:
        broken = False
        with _pool(1) as pool:
            for item in left:
                try:
                    yield from _submit(pool, work, [item]).result()
                except BrokenProcessPool:
                    yield lost(item)
                    broken = True
                    break


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: a copy of a process with threads can hang. Spawned ones import what `work` needs, and no more.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _submit(pool: ProcessPoolExecutor, work: Callable[[Item], Result], chunk: list[Item]) -> Future[list[Result]]:
    with without_current_folder():  # a process is started when there is work for it
        return pool.submit(_each, work, chunk)


def _each(work: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [work(item) for item in chunk]


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    warnings.simplefilter("ignore")
    end_with_parent()
