"""Timing: statistics, interleaving, and what is refused."""

import numpy as np
import pytest

from hybridvit.errors import UsageError
from hybridvit.measure.latency import Latency, measure, median_interval, quantile, take_turns, timed


class FakeClock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_quantiles_are_of_the_nearest_rank() -> None:
    values = tuple(float(value) for value in range(1, 101))
    assert quantile(values, 0.9) == 90
    assert quantile(values, 0.99) == 99
    assert quantile((7.0,), 0.9) == 7
    assert quantile((1.0, 2.0), 0.5) == 1


def test_latency_summarises_any_order() -> None:
    latency = Latency(times_ms=(5.0, 1.0, 4.0, 2.0, 3.0, 100.0, 3.0, 3.0, 3.0, 3.0))
    assert latency.median_ms == 3
    assert latency.p90_ms == 5
    assert latency.p99_ms == 100


def test_the_interval_holds_the_median_and_shrinks_with_more_rounds() -> None:
    few = median_interval(tuple(float(value) for value in range(20)))
    many = median_interval(tuple(value / 100 for value in range(2000)))
    assert few[0] <= 9.5 <= few[1]
    assert many[0] <= 10 <= many[1]
    assert many[1] - many[0] < few[1] - few[0]
    # binomial tables: 95 % for the median of 20 values are the 6th to the 15th, at most one place wider here
    assert few == (5, 15)


def test_the_interval_holds_the_median_of_all_processes_and_not_of_those_alone_that_were_opened() -> None:
    dice = np.random.default_rng(0)
    held_by_turns = held = 0
    for _ in range(400):  # candidates of five processes that differ twice as much as turns do; the median is 100
        turns = 100 + np.tile(dice.normal(0, 2, 5), 10) + dice.normal(0, 1, 50)
        latency = Latency(times_ms=tuple(turns), processes=tuple(range(5)) * 10)
        (low, high), (turns_low, turns_high) = latency.interval_ms, median_interval(latency.turns_ms)
        held += low <= 100 <= high
        held_by_turns += turns_low <= 100 <= turns_high
    assert held / 400 > 0.92  # 15 of 16 are expected
    assert held_by_turns / 400 < 0.7


def test_candidates_take_turns_and_every_other_round_runs_backwards() -> None:
    calls: list[str] = []
    measure({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=8, warmup=0)
    assert "".join(calls[:12]) == "abccbaabccba"


def test_only_the_call_and_the_wait_after_it_are_timed() -> None:
    clock = FakeClock()
    pending = 0.0

    def run() -> None:
        nonlocal pending
        clock.now += 1e-3
        pending += 4e-3  # an asynchronous device is still busy

    def wait() -> None:
        nonlocal pending
        clock.now += pending
        pending = 0.0

    measured = measure({"gpu": run}, wait=wait, rounds=8, warmup=3, clock=clock)
    assert measured["gpu"].times_ms == pytest.approx([5.0] * 8)


def test_a_budget_ends_early_but_not_before_an_interval_means_something() -> None:
    clock = FakeClock()

    def run() -> None:
        clock.now += 1.0

    for budget_s, rounds in ((20.5, 21), (0.1, 8)):
        *_, times = take_turns({"a": timed(run, clock=clock)}, rounds=100, budget_s=budget_s, clock=clock)
        assert len(times["a"]) == rounds


def test_too_few_rounds_are_refused_with_the_rule() -> None:
    with pytest.raises(UsageError, match=r"rounds=3: .* at least 8 rounds.* Use --rounds 8"):
        measure({"a": lambda: None}, rounds=3)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="list of candidates is empty"):
        measure({})
