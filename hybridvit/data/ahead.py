"""What comes next is made while this is worked on."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import TypeVar

Item, Made = TypeVar("Item"), TypeVar("Made")
_STOPS_WITHIN_S = 0.1  # of being told to
_WAITS_S = 5.0  # at the end for a thread that is stuck in a device or a connection


class _End:
    """After the last item: with the error that ended them, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _taken(waiting: "queue.Queue[Item | _End]") -> Item | _End:
    """The next one; asked for again and again, for on Windows Ctrl-C does not end a wait without limit."""
    while True:
        with suppress(queue.Empty):
            return waiting.get(timeout=_STOPS_WITHIN_S)


def ahead(items: Generator[Item, None, None], most: int) -> Generator[Item, None, None]:
    """The items in their order, made by a thread of their own, of which at most `most` wait.

    What their making raises is raised here, in its place. Closed early, the thread stops and closes `items`.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=most)
    stop = threading.Event()

    def put(item: Item | _End) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=_STOPS_WITHIN_S)
                break

    def make() -> None:
        error: BaseException | None = None
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if stop.is_set():
                        return
        except BaseException as raised:  # whatever it is, it belongs to those who wait
            error = raised
        put(_End(error))

    thread = threading.Thread(target=make, daemon=True, name="ahead")
    thread.start()
    try:
        while not isinstance(item := _taken(waiting), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join(_WAITS_S)


def side_by_side(
    items: Generator[Item, None, None], make: Callable[[Item], Made], workers: int
) -> Generator[Made, None, None]:
    """What `make` makes of each item, in their order, by so many threads; each is given as soon as those before it are.

    At most twice as many as there are threads are taken from `items` and not yet given. What the items or `make` raise
    is raised here, in its place. Closed early, what is being made is finished, and `items` are closed.
    """
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="side-by-side")
    try:
        with closing(items):
            while True:
                try:
                    item = next(items)
                except StopIteration:
                    break
                except Exception as error:  # whatever it is, it comes after what is being made
                    failed: Future[Made] = Future()
                    failed.set_exception(error)
                    waiting.append(failed)
                    break
                waiting.append(pool.submit(make, item))
                while waiting and (waiting[0].done() or len(waiting) >= 2 * workers):
                    yield _made(waiting.popleft())
            while waiting:
                yield _made(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _made(future: "Future[Made]") -> Made:
    """Its result; asked for again and again, as above."""
    while not future.done():
        wait([future], timeout=_STOPS_WITHIN_S)
    return future.result()
