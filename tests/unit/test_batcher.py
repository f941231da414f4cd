"""The queue before a model, on a clock of its own: sizes, deadlines, clients that leave, and nothing left behind."""

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridvit.serve.batcher import Batcher, Computed
from hybridvit.serve.refusals import BadRequest, Deadline, Internal, NotFinite, Overloaded, Refusal, Stopping, within


class Clock(selectors.DefaultSelector):
    """A selector that does not wait: it says that the time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that does not come"
        self.now_s += timeout
        return super().select(0)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, in a loop whose time passes at once."""
    clock = Clock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now_s  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Model:
    """Doubles its images; takes so long for a batch, and remembers the batches."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.batches: list[list[float]] = []
        self.refusal: Exception | None = None

    async def __call__(self, images: Sequence[np.ndarray]) -> Computed:
        assert len({image.shape for image in images}) == 1
        self.batches.append([float(image.flat[0]) for image in images])
        await asyncio.sleep(self.seconds)
        if self.refusal is not None:
            raise self.refusal
        return Computed(outputs={"twice": 2 * np.stack(images)[:, 0, 0]}, ms=self.seconds * 1e3)


def images_of(*values: float, side: int = 2) -> np.ndarray:
    """One image for each value, filled with it."""
    return np.stack([np.full((1, side, side), value, np.float32) for value in values])


class Running:
    """A batcher that runs as long as the block does."""

    def __init__(self, model: Model, **options: Any) -> None:
        self.batcher = Batcher(model, **{"max_batch": 4, "queue": 16, **options})

    async def __aenter__(self) -> Batcher:
        self._task = asyncio.ensure_future(self.batcher.run())
        return self.batcher

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def twice(batcher: Batcher, *values: float, deadline_s: float = 10.0, side: int = 2) -> list[float]:
    async with within(deadline_s):
        answered = await batcher.ask(images_of(*values, side=side))
    return [float(row.flat[0]) for row in answered.outputs["twice"]]


def test_what_waits_when_the_model_becomes_free_is_one_batch():
    model = Model()

    async def work() -> list[list[float]]:
        async with Running(model) as batcher:
            return await asyncio.gather(*(twice(batcher, value) for value in range(7)))

    assert run(work()) == [[2.0 * value] for value in range(7)]
    assert [len(batch) for batch in model.batches] == [4, 3]


def test_a_request_of_many_images_is_split_and_keeps_its_order():
    model = Model()

    async def work() -> list[float]:
        async with Running(model) as batcher:
            return await twice(batcher, *range(11))

    assert run(work()) == [2.0 * value for value in range(11)]
    assert max(map(len, model.batches)) == 4


def test_images_of_other_sizes_wait_for_a_batch_of_their_own():
    model = Model()

    async def work() -> list[list[float]]:
        async with Running(model) as batcher:
            return await asyncio.gather(*(twice(batcher, value, side=2 + value % 2) for value in range(4)))

    assert run(work()) == [[0.0], [2.0], [4.0], [6.0]]
    assert sorted(model.batches) == [[0.0, 2.0], [1.0, 3.0]]


def test_more_than_the_free_places_are_refused_as_a_whole():
    async def work() -> None:
        async with Running(Model(), queue=4, max_batch=1) as batcher:
            first = asyncio.ensure_future(twice(batcher, 1, 2, 3))
            await asyncio.sleep(0.01)  # one is computed, two wait
            with pytest.raises(Overloaded, match=r"^2 of 4 places in the queue are taken, and this request needs 3\. "):
                await twice(batcher, 4, 5, 6)
            assert await twice(batcher, 7, 8) == [14.0, 16.0]
            assert await first == [2.0, 4.0, 6.0]

    run(work())


def test_a_request_that_never_fits_is_not_told_to_come_back():
    async def work() -> None:
        async with Running(Model(), queue=4) as batcher:
            with pytest.raises(BadRequest, match=r"has 5 images, but at most 4 can wait\. "):
                await twice(batcher, *range(5))

    run(work())


def test_a_deadline_ends_on_time_while_another_batch_is_computed():
    async def work() -> None:
        async with Running(Model(seconds=100), max_batch=1) as batcher:
            asked = [asyncio.ensure_future(twice(batcher, value, deadline_s=3)) for value in range(3)]
            with pytest.raises(Deadline, match="longer than 3 seconds"):
                await asked[2]
            assert asyncio.get_running_loop().time() == pytest.approx(3)
            await asyncio.gather(*asked, return_exceptions=True)
            assert batcher.num_waiting == 0

    run(work())


def test_a_free_model_waits_for_company_only_as_long_as_it_is_told_to():
    async def work(max_wait_s: float) -> float:
        async with Running(Model(seconds=0), max_wait_s=max_wait_s) as batcher:
            await twice(batcher, 1)
            return asyncio.get_running_loop().time()

    assert run(work(0.0)) == 0
    assert run(work(0.5)) == pytest.approx(0.5)


def test_a_full_batch_waits_no_longer():
    async def work() -> float:
        async with Running(Model(seconds=0), max_wait_s=5) as batcher:
            await asyncio.gather(*(twice(batcher, value) for value in range(4)))
            return asyncio.get_running_loop().time()

    assert run(work()) == 0


def test_numbers_that_are_not_finite_are_refused_for_the_picture_that_they_belong_to():
    async def work() -> None:
        async with Running(Model()) as batcher:
            good, bad = await asyncio.gather(twice(batcher, 1), twice(batcher, np.inf), return_exceptions=True)
            assert good == [2.0]
            assert isinstance(bad, NotFinite)
            assert str(bad).startswith("The model's output 'twice' for this picture has numbers that are not finite.")

    run(work())


@pytest.mark.parametrize(("raised", "seen"), [(BadRequest("no"), BadRequest), (RuntimeError("fault"), Internal)])
def test_what_a_batch_is_refused_for_is_told_to_all_in_it_and_the_next_is_answered(raised, seen):
    model = Model()
    model.refusal = raised

    async def work() -> None:
        async with Running(model) as batcher:
            told = await asyncio.gather(*(twice(batcher, value) for value in range(3)), return_exceptions=True)
            assert [type(each) for each in told] == [seen] * 3
            model.refusal = None
            assert await twice(batcher, 1, 2) == [2.0, 4.0]

    run(work())


def test_nothing_is_computed_while_the_model_is_not_ready():
    model = Model()

    async def work() -> None:
        ready = asyncio.Event()
        async with Running(model, ready=ready) as batcher:
            asked = asyncio.ensure_future(twice(batcher, 1))
            await asyncio.sleep(1)
            assert (batcher.num_waiting, model.batches) == (1, [])
            ready.set()
            assert await asked == [2.0]

    run(work())


def test_a_closed_queue_refuses_what_is_computed_what_waits_and_what_comes():
    async def work() -> None:
        async with Running(Model(), max_batch=1) as batcher:
            asked = [asyncio.ensure_future(twice(batcher, value)) for value in range(3)]
            await asyncio.sleep(0.01)
            batcher.close(Stopping("the end"))
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(each) for each in told] == [Stopping] * 3
            assert asyncio.get_running_loop().time() < 0.1  # not when the batch is done
            with pytest.raises(Stopping):
                await twice(batcher, 1)

    run(work())


def test_a_storm_of_clients_that_leave_costs_no_place_and_no_right_answer():
    async def work() -> None:
        async with Running(Model(seconds=0.01), queue=64) as batcher:
            for _ in range(20):
                asked = [asyncio.ensure_future(twice(batcher, value)) for value in range(50)]
                await asyncio.sleep(0.005)
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
                assert batcher.num_waiting == 0
            answers = [await twice(batcher, value) for value in range(100)]
            assert answers == [[2.0 * value] for value in range(100)]

    run(work())


REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 6),  # images
        st.sampled_from([1, 2]),  # their size
        st.floats(0, 2),  # when it comes
        st.one_of(st.none(), st.floats(0.01, 1)),  # how long after that its client leaves
        st.floats(0.05, 2),  # its deadline
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(requests=REQUESTS, max_batch=st.integers(1, 5), queue=st.integers(5, 12), wait_s=st.sampled_from([0.0, 0.2]))
def test_whatever_comes_and_goes_answers_are_right_and_the_queue_ends_empty(requests, max_batch, queue, wait_s):
    model = Model()

    async def one(batcher: Batcher, number: int, count: int, side: int, at: float, leaves: float | None, limit: float):
        await asyncio.sleep(at)
        began = asyncio.get_running_loop().time()
        values = [number + place / 10 for place in range(count)]
        asked = asyncio.ensure_future(twice(batcher, *values, deadline_s=limit, side=side))
        if leaves is not None:
            asyncio.get_running_loop().call_later(leaves, asked.cancel)
        with suppress(Refusal, asyncio.CancelledError):
            assert await asked == pytest.approx([2 * value for value in values], rel=1e-6)
        assert asyncio.get_running_loop().time() - began <= limit + 1e-6

    async def work() -> None:
        async with Running(model, max_batch=max_batch, queue=queue, max_wait_s=wait_s) as batcher:
            await asyncio.gather(*(one(batcher, number, *each) for number, each in enumerate(requests)))
            assert batcher.num_waiting == 0
            assert await twice(batcher, 1, 2, 3) == [2.0, 4.0, 6.0]

    run(work())
    assert all(1 <= len(batch) <= max_batch for batch in model.batches)
