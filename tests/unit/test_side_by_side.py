"""Several threads at work on a stream: what they make comes in its order, and so does what goes wrong."""

import threading
import time
from collections.abc import Generator

import pytest

from hybridvit.data.ahead import side_by_side


def numbers(count: int, *, fails: bool = False, taken: list[int] | None = None) -> Generator[int, None, None]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number
    if fails:
        raise ValueError("no more")


def slow_for_even(number: int) -> int:
    time.sleep(0.02 if number % 2 == 0 else 0)
    return -number


def test_what_is_made_comes_in_its_order() -> None:
    assert list(side_by_side(numbers(20), slow_for_even, 3)) == [-number for number in range(20)]
    assert list(side_by_side(numbers(0), slow_for_even, 3)) == []


def test_so_many_threads_work_at_once() -> None:
    together = threading.Barrier(3, timeout=20)  # none goes on before all three are there
    assert len(list(side_by_side(numbers(3), lambda _: together.wait(), 3))) == 3


def test_few_are_taken_before_those_before_them_are_given() -> None:
    taken: list[int] = []
    made = side_by_side(numbers(100, taken=taken), slow_for_even, 2)
    next(made)
    assert len(taken) <= 4
    made.close()
    assert len(taken) <= 4


def test_what_is_raised_is_raised_in_its_place() -> None:
    got: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        got.extend(side_by_side(numbers(5, fails=True), slow_for_even, 2))
    got.clear()
    with pytest.raises(ZeroDivisionError):
        got.extend(side_by_side(numbers(9), lambda number: 1 // (number - 3), 2))
    assert len(got) == 3


def test_closed_early_it_closes_what_it_takes_from() -> None:
    items = numbers(100)
    made = side_by_side(items, slow_for_even, 2)
    next(made)
    made.close()
    assert next(items, None) is None
