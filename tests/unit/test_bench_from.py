"""`hybridvit bench --from`: results are shown and compared, and nothing is measured."""

import json
from pathlib import Path

import pytest
from bench_results import result, row

from hybridvit.cli import main

STEADY = tuple(10.0 + 0.01 * number for number in range(9))
OF_A_BROWSER = {  # what only differs from a machine of ours
    "processor": "Phone 9",
    "gpu": "some gpu",
    "system": "Android 16",
    "python": "",
    "instruction_sets": [],
    "versions": {"onnxruntime-web": "1.30.0", "browser": "Chrome 156"},
    "environment": {"isolated": True, "threads": [4], "clock_step_ms": 0.005, "user_agent": "Mozilla/5.0"},
}


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """A result as the page saves it: two threads and one, of the same model."""
    whole = result(row(STEADY, threads=2), row(STEADY, threads=1)).to_dict()
    whole["machine"] |= OF_A_BROWSER
    del whole["notes"]
    for record in whole["bench"]:
        record |= {"runtime": "onnxruntime-web", "memory_mib": None, "faults_per_call": None, "difference": 3e-7}
    path = tmp_path / "phone.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def test_a_result_of_a_browser_is_shown(phone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--from", str(phone), "--csv", str(tmp_path / "r.csv")]) == 0
    said = capsys.readouterr().out
    for text in ("onnxruntime-web", "threads", "Phone 9", "Android 16\n", "browser Chrome 156", "isolated=True"):
        assert text in said
    assert (tmp_path / "r.csv").read_text(encoding="utf-8").count("\n") == 3


def test_two_results_are_compared_with_names_that_tell_candidates_apart(
    phone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = json.loads(phone.read_text(encoding="utf-8"))
    slower["bench"][1] |= {"median_ms": 20.0, "low_ms": 19.0, "high_ms": 21.0}
    (tmp_path / "slower.json").write_text(json.dumps(slower), encoding="utf-8")
    assert main(["bench", "--from", str(phone), "--against", str(phone)]) == 0
    assert "threads 2" in capsys.readouterr().out
    assert main(["bench", "--from", str(tmp_path / "slower.json"), "--against", str(phone)]) == 9
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.endswith("slower"))
    assert "cpu, threads 1" in line


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["m.onnx"], "shows what was measured, and measures nothing: leave out models"),
        (["--rounds", "9"], "--against, --tolerance, --chart and --csv go with it"),
        (["--json", "other.json"], "measures nothing"),
    ],
)
def test_what_only_measuring_needs_is_refused(
    words: list[str], text: str, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--from", str(phone), *words]) == 2
    assert text in capsys.readouterr().err


def test_without_models_and_without_a_result_there_is_nothing_to_do(
    phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench"]) == 2
    assert "also needs MODELS, or --from FILE" in capsys.readouterr().err
    empty = json.loads(phone.read_text(encoding="utf-8")) | {"bench": []}
    phone.write_text(json.dumps(empty), encoding="utf-8")
    assert main(["bench", "--from", str(phone)]) == 2
    assert "nothing was measured" in capsys.readouterr().err
