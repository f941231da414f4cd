"""The protocol in Python gives what the shared cases say; test_node_parity.py asks JavaScript the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from hybridvit.bench_page.fixed_input import fixed_input
from hybridvit.measure import conditions, latency, notes
from hybridvit.measure.latency import Latency, take_turns, warm_up

CASES = json.loads(Path(__file__).parents[1].joinpath("golden", "latency_cases.json").read_text(encoding="utf-8"))


def test_the_numbers_of_the_protocol_are_those_of_the_cases() -> None:
    known = vars(conditions) | vars(notes) | vars(latency)
    assert {name: known[name] for name in CASES["constants"]} == CASES["constants"]


@pytest.mark.parametrize("case", CASES["latencies"], ids=lambda case: case["name"])
def test_times_are_summed_up_as_in_the_cases(case: dict[str, Any]) -> None:
    times, calls = tuple(case["times_ms"]), case["calls_per_turn"]
    found = Latency(times_ms=times, calls_per_turn=calls, processes=tuple(case["processes"]))
    assert found.median_ms == pytest.approx(case["median_ms"])
    assert found.interval_ms == pytest.approx(case["interval_ms"])
    assert (found.p90_ms, found.p99_ms) == (case["p90_ms"], case["p99_ms"])
    assert [list(turns) for turns in found.turns_by_process_ms] == case["turns_ms"]
    assert found.process_spread == pytest.approx(case["spread"])
    assert conditions.drift([times], calls) == pytest.approx(case["drift"])


def test_a_drift_over_several_is_as_in_the_cases() -> None:
    case = CASES["drift_of_several"]
    assert conditions.drift(case["times_ms"], case["calls_per_turn"]) == pytest.approx(case["drift"])


@pytest.mark.parametrize("case", CASES["warm_ups"])
def test_warming_up_ends_as_in_the_cases(case: dict[str, Any]) -> None:
    made = 0

    def turn(calls: int) -> list[float]:
        nonlocal made
        made += calls
        return case["windows"][made - calls : made]

    assert warm_up(turn, clock=lambda: made * case["seconds_per_call"]) == case["is_stable"]
    assert made == case["calls"]


def test_the_order_of_rounds_is_as_in_the_cases() -> None:
    case, called = CASES["order"], []
    turns = {name: lambda calls, name=name: called.append(name) or [1.0] for name in case["candidates"]}
    list(take_turns(turns, rounds=len(case["rounds"])))
    assert "".join(called) == "".join(case["rounds"])


def test_the_input_is_noise_like_normalised_images_and_like_pixels() -> None:
    images = fixed_input((1, 3, 64, 64))
    assert images.dtype == "float32"
    assert abs(images.mean()) < 0.02
    assert abs(images.var() - 1) < 0.02
    assert not (images == fixed_input((1, 3, 64, 64), seed=2)).any()
    pixels = fixed_input((1, 64, 64, 3), pixels="uint8")
    assert (pixels.dtype, pixels.min(), pixels.max()) == ("uint8", 0, 255)
