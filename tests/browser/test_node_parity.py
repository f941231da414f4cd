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


def test_answers_in_webassembly_are_those_of_onnx_runtime(bench_pages: Callable[..., Path]) -> None:
    errors = node("answers_in_webassembly.mjs", bench_pages(*MODELS))
    assert list(errors) == list(MODELS)
    assert max(errors.values()) <= 1e-4, errors
