"""The units of a job in processes of this machine. Needs pyarrow alone."""

import os
import queue
import threading
from collections.abc import Generator, Sequence
from functools import partial
from multiprocessing.connection import Connection

from hybridvit.child import Child, ChildDied
from hybridvit.errors import DatasetError, ProcessLost
from hybridvit.jobs.engine import TICK_S, Engine
from hybridvit.jobs.unit import Receipt
from hybridvit.jobs.worker import Work, Worker

_MOST_DEATHS = 8  # of processes for one unit: workers count those that began it, this counts all
_ENDING_S = 10.0  # for the threads that wait for processes which were ended


class LocalEngine(Engine):
    """`num_workers` processes, each with the model, on so many GPUs each. One that dies is started anew."""

    def __init__(self, work: Work, num_workers: int, *, gpus_each: float = 0.0) -> None:
        self._work, self._num_workers, self._gpus_each = work, num_workers, gpus_each
        self._children: dict[int, Child] = {}
        self._is_closed = threading.Event()
        self._starting = threading.Lock()  # a process is started with variables that are those of all threads

    def receipts(self, numbers: Sequence[int]) -> Generator[Receipt | DatasetError | None, None, None]:
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in numbers:
            waiting.put(number)
        said: queue.SimpleQueue[Receipt | BaseException] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._drive, args=(place, waiting, said), daemon=True, name=f"worker {place}")
            for place in range(min(self._num_workers, len(numbers)))
        ]
        for thread in threads:
            thread.start()
        try:
            missing = len(numbers)
            while missing:
                try:
                    answer = said.get(timeout=TICK_S)
                except queue.Empty:
                    yield None
                    continue
                if isinstance(answer, BaseException) and not isinstance(answer, DatasetError):
                    raise answer
                missing -= 1
                yield answer
        finally:
            self._is_closed.set()
            for child in list(self._children.values()):
                child.kill()
            for thread in threads:
                thread.join(_ENDING_S)

    def _drive(
        self, place: int, waiting: "queue.SimpleQueue[int]", said: "queue.SimpleQueue[Receipt | BaseException]"
    ) -> None:
        """Have one process after the other do units until none waits."""
        try:
            while not self._is_closed.is_set():
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                said.put(self._done(place, number))
        except BaseException as error:  # whatever it is, the job's own thread raises it
            said.put(error)
        finally:
            if child := self._children.pop(place, None):
                child.end()

    def _done(self, place: int, number: int) -> Receipt | DatasetError:
        """One unit; as often as its process dies it is given to another. Raises ProcessLost after too many."""
        for death in range(1, _MOST_DEATHS + 1):
            child = self._children.get(place)
            if child is None:
                with self._starting:
                    child = self._children[place] = Child(partial(_serve, self._work, self._gpu_of(place)))
                if self._is_closed.is_set():  # meanwhile, when this one was not there to be ended
                    child.kill()
            child.send(number)
            try:
                return child.receive()
            except DatasetError as error:
                return error
            except ChildDied as error:
                self._children.pop(place).end()
                if self._is_closed.is_set() or death == _MOST_DEATHS:
                    raise ProcessLost(f"The process that was to do unit {number} {error}.") from error
        raise AssertionError("the last process is done, or dies")

    def _gpu_of(self, place: int) -> int | None:
        return int(place * self._gpus_each) if self._gpus_each else None


def _serve(work: Work, gpu: int | None, pipe: Connection) -> None:
    """Do the units whose numbers come."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpu(gpu, os.environ.get("CUDA_VISIBLE_DEVICES"))
    worker = Worker(work)
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(worker.do(number))
        except DatasetError as error:
            pipe.send(error)


def visible_gpu(number: int, visible: str | None) -> str:
    """What CUDA_VISIBLE_DEVICES is to be for one of the GPUs that it shows now; empty where it shows fewer."""
    return str(number) if visible is None else "".join(visible.split(",")[number : number + 1])
