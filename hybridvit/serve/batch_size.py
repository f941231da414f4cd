"""How many pictures to compute at once: measured, because on a CPU larger batches are often slower."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from hybridvit.errors import OutOfMemory
from hybridvit.measure.latency import MIN_ROUNDS, Turn, quantile, take_turns, timed

SIZES = (1, 2, 4, 8, 16, 32)
BUDGET_S = 4.0
GOOD_ENOUGH = 0.95  # of the best throughput: then the smaller batch answers sooner

Times = dict[int, float]
"""Milliseconds that a batch of each size takes."""


def measured(
    run: Callable[[np.ndarray], object],
    shape: tuple[int, ...],
    sizes: tuple[int, ...] = SIZES,
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """The median time of batches of images of that shape, one size in turn with the others.

    Sizes for which the budget leaves too little time, or the machine too little memory, are left out, the smallest
    never.
    """
    turns: dict[str, Turn] = {}
    spent_s = 0.0
    for size in sizes:
        turn = timed(partial(run, np.zeros((size, *shape), np.float32)), clock=clock)
        try:
            turn(1)  # the first call of a size sets up what later ones use
            spent_s += turn(1)[0] / 1e3
        except OutOfMemory:
            break
        if turns and spent_s * (MIN_ROUNDS + 2) > budget_s:
            break
        turns[str(size)] = turn
    times: Mapping[str, list[float]] = {}
    for so_far in take_turns(turns, rounds=100, budget_s=budget_s / 2, clock=clock):
        times = so_far
    return {int(size): quantile(tuple(values), 0.5) for size, values in times.items()}


def chosen(times: Times) -> int:
    """The smallest batch whose throughput is nearly the best."""
    best = max(size / ms for size, ms in times.items())
    return min(size for size, ms in times.items() if size / ms >= GOOD_ENOUGH * best)
