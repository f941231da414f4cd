"""What `hybridvit serve` and its factory are given: names, limits, addresses; what cannot be served is refused."""

from pathlib import Path

import pytest

from hybridvit.cli import main
from hybridvit.errors import UsageError
from hybridvit.serve.app import from_env
from hybridvit.serve.limits import Limits
from hybridvit.serve.models import Models, named
from hybridvit.serve.served import Model
from hybridvit.serve.server import bound


def test_models_have_the_names_of_their_files_or_those_that_they_are_given() -> None:
    assert named(["runs/a.onnx", "small=b.onnx", "x/y=z.onnx"]) == {
        "a": "runs/a.onnx",
        "small": "b.onnx",
        "y=z": "x/y=z.onnx",
    }
    with pytest.raises(UsageError, match=r"^Two models are called 'a': a\.onnx and b/a\.onnx\. Give one another"):
        named(["a.onnx", "b/a.onnx"])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(queue=0), "--queue is 0, but it must be at least 1"),
        (Limits(deadline=0), "--deadline is 0, but it must be at least 0.001"),
        (Limits(deadline=float("nan")), "--deadline is nan"),
        (Limits(max_batch=0), "--max_batch is 0"),
        (Limits(max_batch=65), "--max_batch is 65, but only --queue 64 pictures may wait"),
        (Limits(max_wait_ms=-1), "--max_wait_ms is -1"),
    ],
)
def test_limits_that_nothing_can_be_served_with_are_refused(limits: Limits, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Models([Model(name="a", path="a.onnx")], limits)


def test_an_address_that_somebody_serves_at_already_is_refused_before_a_model_is_opened(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "nowhere.onnx", "--port", str(port)]) == 2
    assert f"The address 127.0.0.1:{port} cannot be served at: " in capsys.readouterr().err


def test_a_factory_serves_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYBRIDVIT_MODELS", raising=False)
    with pytest.raises(UsageError, match=r"^HYBRIDVIT_MODELS names no model\. Set it to files"):
        from_env()
    monkeypatch.setenv("HYBRIDVIT_MODELS", "a.onnx 'small=with space.onnx'")
    assert "/predict" in from_env().openapi()["paths"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.onnx", "--host", "0.0.0.0"], "Add --public"),
        (["a.onnx", "--certfile", "a.pem"], "go together"),
        (["a.onnx", "--certfile", "a.pem", "--keyfile", "b.pem"], "there is no such file"),
        (["a.onnx", "--certfile", __file__, "--keyfile", __file__], "are no certificate and its key"),
        (["nowhere.onnx", "--port", "0"], "There is no file nowhere.onnx"),
        (["a.onnx", "--port", "70000"], "70000"),
        (["a.onnx", "a.onnx"], "Two models are called 'a'"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *words]) in (2, 5)
    assert message in capsys.readouterr().err
