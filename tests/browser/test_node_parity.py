"""The page's own JavaScript and ONNX Runtime Web's WebAssembly in Node: the same numbers as in Python."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from required import missing

from hybridvit.bench_page.fixed_input import fixed_input
from hybridvit.bench_page.page import STATIC

TESTS = Path(__file__).parents[1]
CASES = TESTS / "golden" / "latency_cases.json"
MODELS = ("fastvit_t8", "fastvit_sa12", "fastervit_0")


def node(program: str, *words: object) -> Any:
    """The JSON that a program in tests/programs writes."""
    found = shutil.which("node") or missing("node", "apt-get install nodejs")
    words = (found, "--no-warnings", TESTS / "programs" / program, *words)
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return node("latency_in_javascript.mjs", STATIC, CASES)


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    return json.loads(CASES.read_text(encoding="utf-8"))


def test_the_protocol_in_javascript_is_that_in_python(said: dict[str, Any], cases: dict[str, Any]) -> None:
    assert said["constants"] == cases["constants"]
    assert said["order"] == cases["order"]["rounds"]
    assert said["drift"] == pytest.approx(cases["drift_of_several"]["drift"])
    wanted = [{"isStable": each["is_stable"], "calls": each["calls"]} for each in cases["warm_ups"]]
    assert said["warmUps"] == wanted
    for found, case in zip(said["latencies"], cases["latencies"], strict=True):
        interval = [found["lowMs"], found["highMs"]]
        assert [found["medianMs"], *interval] == pytest.approx([case["median_ms"], *case["interval_ms"]])
        assert [found["p90Ms"], found["p99Ms"]] == [case["p90_ms"], case["p99_ms"]]
        assert found["turnsMs"] == case["turns_ms"]
        assert found["spread"] == pytest.approx(case["spread"])
        assert found["drift"] == (None if case["drift"] is None else pytest.approx(case["drift"]))


def test_the_input_is_the_same_to_the_last_bit(said: dict[str, Any]) -> None:
    assert np.array_equal(np.float32(said["images"]), fixed_input((1, 3, 5, 7), seed=3).ravel())
    assert np.array_equal(said["pixels"], fixed_input((1, 5, 7, 3), pixels="uint8").ravel())


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return node("heats_in_javascript.mjs", STATIC)


def test_more_candidates_than_workers_take_turns_in_heats_with_the_first_in_each(runs: dict[str, Any]) -> None:
    heats = runs["heats"]
    assert "".join(heats["calls"]) == 4 * "abba" + 4 * "acca"
    assert (heats["mostAlive"], heats["leftAlive"], heats["isComplete"]) == (2, 0, True)
    assert (heats["workers"], heats["turns"]) == ([2, 1, 1], [16, 8, 8])


def test_what_is_wrong_hangs_or_breaks_is_left_out_or_tried_with_one_thread(runs: dict[str, Any]) -> None:
    faulty = runs["faulty"]
    assert dict(faulty["skipped"]) == {
        "wrong": "it answers something else than ONNX Runtime: 5.0e-1 of the largest output, where 1.0e-4 is allowed",
        "breaks": "it failed: out of memory",
    }
    assert (faulty["threads"], faulty["turns"]) == ([1, 4], [8, 8])
    assert faulty["leftAlive"] == 0
    same = runs["same"]
    assert same["skipped"] == [["hangs", "it is measured with 1 thread already, since more did not run"]]
    assert same["threads"] == [1]
    assert (same["rounds"], same["turns"]) == (8, [8])  # three were asked for: too few for an interval


def test_the_bar_goes_from_nothing_to_all_and_never_back(runs: dict[str, Any]) -> None:
    assert {name: (run["shares"], run["isShareRising"]) for name, run in runs.items()} == dict.fromkeys(
        runs, ([0, 1], True)
    )


def test_one_that_is_lost_is_not_opened_again_and_the_next_takes_part_in_every_heat(runs: dict[str, Any]) -> None:
    lost = runs["lost"]
    assert lost["skipped"] == [["breaks", "it failed: out of memory"]]
    assert (lost["turns"], lost["workers"], lost["mostAlive"]) == ([16, 8], [2, 1], 2)


def test_a_worker_on_webgpu_is_replaced_before_two_hundred_calls(runs: dict[str, Any]) -> None:
    gpu = runs["gpu"]
    assert (gpu["turns"], gpu["workers"]) == ([50], [3])  # 50 turns of 1 + 9 calls, 20 of them to a Worker
    assert (gpu["mostAlive"], gpu["leftAlive"]) == (1, 0)


def timed(model: str, median_ms: float, *, top1: float | None = None, device: str = "cpu", **more: Any) -> dict:
    """A row of a result with an interval of 2 % around its median."""
    interval = {"low_ms": 0.98 * median_ms, "high_ms": 1.02 * median_ms}
    return {"model": model, "median_ms": median_ms, "top1": top1, "device": device, "threads": 4, **interval, **more}


def test_the_answer_is_a_sentence_that_names_the_fastest_and_the_most_accurate() -> None:
    slow = timed("fastvit_sa12", 40.0, top1=80.6)
    quick, close = timed("fastvit_t8", 10.0, top1=76.2, device="webgpu"), timed("b.tag", 10.2, top1=70.0)
    other_way = timed("fastvit_t8", 20.0, top1=76.2)
    clear, alike, single, nothing = node(
        "sentences_in_javascript.mjs", STATIC, json.dumps([[slow, other_way, quick], [close, quick], [slow], []])
    )
    assert clear["sentences"] == [
        "fastvit_t8 (WebGPU) is the fastest here: 10.0 ms an image, 4.0 times as fast as fastvit_sa12 (4 threads).",
        "The most accurate is fastvit_sa12 (4 threads): 80.6 % top-1 at 40.0 ms an image.",
    ]
    assert clear["front"] == ["fastvit_t8", "fastvit_sa12"]
    assert alike["sentences"] == [
        "fastvit_t8 (WebGPU) and b (4 threads) are the fastest here, too close to tell apart: 10.0 ms an image."
    ]
    assert alike["front"] == ["fastvit_t8"]
    assert single["sentences"] == ["fastvit_sa12 (4 threads) takes 40.0 ms an image here."]
    assert nothing["sentences"] == ["Nothing could be measured here."]


def test_answers_in_webassembly_are_those_of_onnx_runtime(bench_pages: Callable[..., Path]) -> None:
    errors = node("answers_in_webassembly.mjs", bench_pages(*MODELS))
    assert list(errors) == list(MODELS)
    assert max(errors.values()) <= 1e-4, errors
