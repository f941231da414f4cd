"""The lines of a run on a terminal and in a log: its pace, the time that is left, one line of any width."""

import os
import re
import types
from collections.abc import Iterator

import pytest
from rich.console import Console

from hybridvit.tasks.classify.task import Classify
from hybridvit.training.observe import Beginning, Step
from hybridvit.training.pace import FEWEST_SECONDS, Pace
from hybridvit.training.record.progress import TrainingProgress, _Line


class Clock:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(clock: Clock, *, waiting: float, steps: int) -> Pace:
    """`steps` steps of one second, of which `waiting` for the loader."""
    pace = Pace(now=clock)

    def slow_loader() -> Iterator[int]:
        while True:
            clock.now += waiting
            yield 1

    for _, _ in zip(range(steps), pace.timed(slow_loader()), strict=False):
        clock.now += 1 - waiting
        pace.step(10)
    return pace


def test_the_share_of_waiting_is_told_once_where_it_is_large() -> None:
    pace = paced(Clock(), waiting=0.4, steps=int(FEWEST_SECONDS) + 5)
    assert pace.data_wait == pytest.approx(0.4)
    assert pace.slow_loader() == pytest.approx(0.4)
    assert pace.slow_loader() is None
    assert paced(Clock(), waiting=0.2, steps=40).slow_loader() is None
    assert paced(Clock(), waiting=0.9, steps=5).slow_loader() is None


def test_speed_counts_neither_validation_nor_saving() -> None:
    clock = Clock()
    pace = paced(clock, waiting=0.1, steps=4)
    clock.now += 1000
    pace.pause()
    clock.now += 2
    pace.step(10)
    lap = pace.lap("validation")
    assert lap.images_per_second == pytest.approx(50 / 6)
    assert pace.lap("validation").images_per_second == 0
    assert pace.lap("step").images_per_second == pytest.approx(50 / 6)


def beginning(step: int, total_steps: int, steps_per_epoch: int) -> Beginning:
    """Of a run that validates once an epoch."""
    return Beginning(
        step=step,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        steps_per_validation=steps_per_epoch,
        history=(),
        seconds=0.0,
    )


def step_of(step: int, pace: Pace) -> Step:
    """A step with loss 1, at this pace."""
    return Step(
        step=step,
        loss=1.0,
        skipped=0,
        images_per_second=pace.images_per_second,
        seconds_per_step=pace.seconds_per_step,
        seconds=pace.session_seconds,
        data_wait=pace.data_wait,
        slow_loader=None,
    )


ROW = {"step": 2, "epoch": 1.0, "train_loss": 1.0, "top1": 50.0, "images_per_second": 9.0}


def test_the_time_left_is_that_of_the_steps_to_come_after_a_resume_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("hybridvit.training.record.progress.time", types.SimpleNamespace(monotonic=clock))
    progress, pace = TrainingProgress(Classify().headline, shown=False), Pace(now=clock)
    progress.begun(beginning(60, total_steps=100, steps_per_epoch=10))
    assert progress.time_left() == "-:--"
    for step in range(61, 71):
        clock.now += 2.0
        pace.step(8)
        progress.stepped(step_of(step, pace))
    assert progress.time_left() == "1:00"
    progress.validating(1, 2)
    clock.now += 20.0
    progress.validated(ROW)
    assert progress.time_left() == "2:00"


@pytest.mark.parametrize("width", [12, 20, 31, 40, 60, 80, 120, 250])
def test_the_bar_is_one_line_of_any_width(width: int) -> None:
    line = _Line()
    pieces = ["loss 12.345", "12345 images/s", "12:34:56 left"]
    line.set(label="epoch 300/300", done=375000, total=375300, pieces=pieces)
    console = Console(width=width, file=open(os.devnull, "w", encoding="utf-8"), record=True)  # noqa: SIM115
    console.print(line)
    (text,) = console.export_text().splitlines()
    assert len(text) <= width
    assert ("left" in text) == (width >= 60)
    assert ("images/s" in text) == (width >= 80)
    console.file.close()


def test_a_log_has_no_control_codes_and_a_long_validation_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("hybridvit.training.record.progress.LINE_EVERY_SECONDS", 0.0)
    progress, pace = TrainingProgress(Classify().headline), Pace()
    progress.begun(beginning(0, total_steps=4, steps_per_epoch=2))
    pace.step(8)
    progress.stepped(step_of(1, pace))
    progress.validating(3, 40)
    progress.validated(ROW | {"ema_top1": 60.0})
    progress.ended(None)
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "\r" not in text
    assert re.search(r"^epoch 1/2  step 1/4  loss 1.000  \d+ images/s  \d+:\d\d left$", text, flags=re.MULTILINE)
    assert "validating  batch 3/40\n" in text
    assert re.search(r"train loss 1.000  top1 50.00 % \(averaged weights 60.00\)  9 images/s", text)
