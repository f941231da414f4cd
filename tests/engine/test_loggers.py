"""Side outputs of a run fail once, with a warning, and never end it."""

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY, TinyTask

from hybridvit.machine.packages import IMPORT_NAMES
from hybridvit.recipe.groups import ScheduleConfig
from hybridvit.training.record.logbook import TensorBoard
from hybridvit.training.train import train


class FullWriter:
    """TensorBoard's on a full disk."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def add_scalar(self, *_: object) -> None:
        raise OSError("No space left on device")


def test_a_run_without_a_working_tensorboard_trains_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = dataclasses.replace(
        TINY, output=str(tmp_path / "run"), schedule=ScheduleConfig(epochs=1, warmup_epochs=0), ema=TINY.ema
    )
    result = train(recipe, progress=False, task=TinyTask())
    assert result.model.is_file()
    assert result.metrics.is_file()
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("TensorBoard takes no more numbers (ModuleNotFoundError: ")
    assert "`hybridvit doctor`" in warning
    assert "TensorBoard takes no more numbers" in result.report.read_text(encoding="utf-8")


def test_a_tensorboard_that_fails_on_the_way_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake: Any = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = FullWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    board = TensorBoard(tmp_path)
    for step in (1, 2):
        board.logged({"step": step, "loss": 1.0})
    board.validated({"step": 2, "top1": 50.0})
    board.ended(None)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "(OSError: No space left on device)" in warning


def test_the_doctor_imports_what_a_training_imports() -> None:
    assert IMPORT_NAMES["tensorboard"] == "torch.utils.tensorboard"
    assert IMPORT_NAMES["scikit-learn"] == "sklearn.datasets"
