"""What a run shows of itself: the page, the files of numbers, the events, Weights & Biases."""

import csv
import dataclasses
import json
import logging
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Interruption, TinyTask
from torch import nn

from hybridvit import fold, load
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.generated import GeneratedImages
from hybridvit.errors import NonFiniteError, UsageError
from hybridvit.evaluate.run import evaluate_model
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.report.charts import chart, tick_labels, ticks
from hybridvit.report.content import Curve
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.record.events import Events
from hybridvit.training.record.logbook import STEP_COLUMNS, StepsCsv, read_steps
from hybridvit.training.record.weights_and_biases import WeightsAndBiases
from hybridvit.training.train import RunResult, train

TINY = ClassifyRecipe(
    model="fastvit_debug",
    data=ClassifyData(source="generated", image_size=32, total_batch=8, workers=0),
    augment=dataclasses.replace(AugmentConfig(), rand_augment="", mixup=0.0, cutmix=0.0),
    schedule=ScheduleConfig(epochs=3, warmup_epochs=0),
    ema=EmaConfig(decay=0.9),
    accelerator="cpu",
)
STEPS = 9  # of the whole run, 3 in an epoch


def run(
    output: Path, *, disturb: Callable[[int], None] = lambda _: None, resume: bool = False, **keys: Any
) -> RunResult:
    """Train; `disturb` is called before each loss with the number of those before."""
    recipe = dataclasses.replace(TINY, output=str(output), **keys)
    task = TinyTask(lambda what, count: disturb(count) if what == "loss" else None)
    return train(recipe, resume=resume, progress=False, task=task)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("seeing") / "run")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def curves(page: str) -> list[str]:
    """The lines of all charts but the last, which is the speed."""
    return re.findall(r'<polyline points="([^"]{20,})"', page.partition("<h3>Speed</h3>")[0])


def test_the_page_has_the_numbers_of_the_csv(finished: RunResult) -> None:
    page = finished.report.read_text(encoding="utf-8")
    table = re.search(r"<details>.*?</details>", page, flags=re.DOTALL)
    assert table is not None
    shown = re.findall(r"<tr>(.*?)</tr>", table[0])[1:]
    expected = rows(finished.metrics)
    assert len(shown) == len(expected) == 3
    for row, values in zip(shown, expected, strict=True):
        cells = re.findall(r">([^<]+)</t[hd]>", row)
        for cell, (name, value) in zip(cells, values.items(), strict=True):
            assert float(cell) == pytest.approx(float(value), rel=0.01, abs=0.006), name
    assert f"validation <b>{float(expected[-1]['loss']):.4g}</b>" in page


def test_folded_answers_are_those_before_folding(finished: RunResult) -> None:
    record = json.loads((finished.folder / "result.json").read_text())
    images = GeneratedImages(length=10, image_size=(32, 32), seed=1)
    model = load(finished.model)
    folded = evaluate_model(fold(model), images, Classify(), model.card)
    assert record["folded"] == pytest.approx(folded.scores.values["top1"], abs=1e-3)
    assert record["folded"] == pytest.approx(record[record["weights"]], abs=1e-3)
    assert record["same_answers"] == record["num_images"] == 10
    assert 0 < record["max_difference"] < 1e-5
    page = finished.report.read_text(encoding="utf-8")
    assert "same answer on all 10 images" in page
    for row in ("raw", "averaged", f"{record['weights']}, folded"):
        assert f'<th scope="row">{row}</th>' in page


def test_a_fold_that_changes_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module) -> nn.Module:
        folded = fold(model)
        for parameter in list(folded.parameters())[-2:]:  # of the head: the last class becomes the first
            parameter.data.neg_()
        return folded

    monkeypatch.setattr("hybridvit.training.train.fold", wrong)
    result = run(tmp_path / "run", schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    assert result.agreement is not None
    assert result.agreement.max_difference > 1e-3
    assert result.agreement.num_same == 0
    assert "same answer on 0 of 10 images" in result.report.read_text(encoding="utf-8")


def test_a_resumed_run_shows_what_an_uninterrupted_one_shows(tmp_path: Path, finished: RunResult) -> None:
    def interrupt(count: int) -> None:
        if count == 5:  # two steps after the checkpoint, both of which are in steps.csv by then
            raise Interruption

    with pytest.raises(Interruption):
        run(tmp_path / "run", disturb=interrupt)
    assert [row["step"] for row in read_steps(tmp_path / "run" / "steps.csv")] == [1, 2, 3, 4, 5]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Running: epoch 1 of 3" in page
    assert 'http-equiv="refresh"' in page
    with (tmp_path / "run" / "steps.csv").open("a") as file:
        file.write("6,2.0,1.")  # cut short by a kill
    resumed = run(tmp_path / "run", resume=True)
    page = resumed.report.read_text(encoding="utf-8")
    expected = finished.report.read_text(encoding="utf-8")
    assert curves(page) == curves(expected)
    assert len(curves(page)) >= 6
    assert "resumed</text>" in page
    assert "Went on from the checkpoint of step 3." in page
    assert 'http-equiv="refresh"' not in page
    ours, theirs = (read_steps(result.folder / "steps.csv") for result in (resumed, finished))
    assert [row["step"] for row in ours] == list(range(1, STEPS + 1))
    for row, other in zip(ours, theirs, strict=True):
        for name in ("loss", "lr", "grad_norm", "epoch"):
            assert row[name] == other[name], name
    assert all(row["grad_norm"] > 0 for row in ours)
    seconds = [row["seconds"] for row in ours]
    assert seconds == sorted(seconds)


def test_steps_of_another_layout_are_started_anew(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text("step,loss\n1,2.0\n")
    log = StepsCsv(tmp_path / "steps.csv", first_step=1)
    log.logged(dict.fromkeys(STEP_COLUMNS, 2))
    log.ended(None)
    assert [row["step"] for row in read_steps(tmp_path / "steps.csv")] == [2]


def test_a_run_that_ends_early_says_why_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(count: int) -> None:
        if count == 4:
            raise NonFiniteError("Step 4 was refused: <loss> nan.")

    with pytest.raises(NonFiniteError):
        run(tmp_path / "run", disturb=poison)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Ended at step 4 of 9: Step 4 was refused: &lt;loss&gt; nan." in page
    assert "--resume" in page


def test_a_page_that_cannot_be_made_is_a_warning_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(report: object) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr("hybridvit.training.record.record.render", broken)
    result = run(tmp_path / "run", schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    assert result.model.is_file()
    assert [record.getMessage() for record in caplog.records] == [
        f"{result.report} could not be written (RuntimeError: no ink)."
    ]


def test_warnings_become_events_and_are_still_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"time": "2026", "step": 1, "kind": "start", "text": "Started."}\n{"time": "20')
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        with Events(path, leads=True, step=7) as events:
            logging.getLogger("hybridvit.data.loader").warning("left out: %s", "a.jpg")
    finally:
        root.handlers = handlers
    assert logging.getLogger("hybridvit").handlers == []
    assert [(event.step, event.text) for event in events.known] == [(1, "Started."), (7, "left out: a.jpg")]
    assert json.loads(path.read_text().splitlines()[-1])["text"] == "left out: a.jpg"
    assert capsys.readouterr().err == "left out: a.jpg\n"


def one_speaks(folder: Path) -> None:
    """What test_two_processes.py calls in each of two processes: one warns, and both validate."""

    def warn(what: str, count: int) -> None:
        if (what, count) == ("loss", 0) and os.environ["RANK"] == "1":
            logging.getLogger("hybridvit").warning("left out: of the second process")

    result = train(dataclasses.replace(TINY, output=str(folder / "run"), devices=2), task=TinyTask(warn))
    assert result.agreement.num_samples == result.agreement.num_same == 10, result


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (61.3, 98.2, ["60", "70", "80", "90", "100"]),
        (0.0, 1e-3, ["0", "2e-4", "4e-4", "6e-4", "8e-4", "1e-3"]),
        (0.0, 4321.0, ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
    ],
)
def test_axes_have_round_numbers(low: float, high: float, labels: list[str]) -> None:
    assert tick_labels(ticks(low, high)) == labels


def test_a_chart_leaves_gaps_for_what_is_not_finite() -> None:
    nan = float("nan")
    points = [(1, 1.0), (2, 2.0), (3, nan), (4, 1.0), (5, 3.0)]
    drawn = chart(Curve(title="t", x_label="epoch", y_label="", lines={"a": points, "none": [(1, nan)]}))
    assert len(re.findall(r'<polyline points="\d', drawn.partition('role="img"')[2])) == 2
    assert "none" not in drawn
    assert "Nothing to draw" in chart(Curve(title="t", x_label="", y_label="", lines={"a": [(1, nan)]}))


class FakeRun:
    """Remembers what is logged; says that `step` steps came before."""

    def __init__(self, step: int, fails: bool) -> None:
        self.step, self.fails = step, fails
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.url, self.finished = "https://wandb.example/run", False

    def log(self, values: dict[str, float], *, step: int) -> None:
        if self.fails:
            raise ConnectionError("the network is gone")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


class FakeWandb(types.ModuleType):
    """Stands for the package."""

    def __init__(self, *, refuses: bool = False, fails: bool = False, step: int = 0) -> None:
        super().__init__("wandb")
        self.refuses, self.fails, self.step = refuses, fails, step
        self.runs: list[FakeRun] = []
        self.asked: list[dict[str, Any]] = []

    def setup(self, settings: object) -> None:
        pass

    def Settings(self, **settings: object) -> dict[str, object]:
        return settings

    def init(self, **arguments: Any) -> FakeRun:
        self.asked.append(arguments)
        if self.refuses:
            raise RuntimeError("No API key configured.")
        self.runs.append(FakeRun(self.step, self.fails))
        return self.runs[-1]


def test_weights_and_biases_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", first)

    def interrupt(count: int) -> None:
        if count == 4:
            raise Interruption

    with pytest.raises(Interruption):
        run(tmp_path / "run", disturb=interrupt, wandb="project")
    assert first.runs[0].finished
    second = FakeWandb(step=5)  # it had taken step 4, which the checkpoint of step 3 does not know
    monkeypatch.setitem(sys.modules, "wandb", second)
    result = run(tmp_path / "run", resume=True, wandb="project")
    assert first.asked[0]["id"] == second.asked[0]["id"]
    assert second.asked[0]["resume"] == "allow"
    assert second.asked[0]["config"]["model"] == "fastvit_debug"
    assert [step for step, values in first.runs[0].logged if "train/loss" in values] == [1, 2, 3, 4]
    assert [step for step, values in second.runs[0].logged if "train/loss" in values] == [5, 6, 7, 8, 9]
    last = [values for step, values in second.runs[0].logged if step == 9 and "validation/top1" in values]
    assert last[0]["validation/top1"] == result.history[-1]["top1"]
    assert "https://wandb.example/run" in result.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("trouble", [{"refuses": True}, {"fails": True}])
def test_weights_and_biases_never_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: dict[str, bool]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(**trouble))
    result = run(tmp_path / "run", wandb="project", schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    assert result.model.is_file()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("Weights & Biases did not ")
    assert "WANDB_MODE=offline" in warning
    assert "Weights &amp; Biases did not" in result.report.read_text(encoding="utf-8")


def test_a_missing_package_is_told_before_anything_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r'pip install "hybridvit\[wandb\]"'):
        run(tmp_path / "run", wandb="project")
    assert not (tmp_path / "run").exists()


def test_the_real_package_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is an extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = WeightsAndBiases("project", run_id="abcd1234", folder=tmp_path, config={"model": "m"})
    log.logged({"step": 1, "loss": 2.0})
    log.validated({"step": 1, "top1": 50.0})
    log.ended(None)
    assert log.run_id == "abcd1234"
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-abcd1234")
    assert (folder / "run-abcd1234.wandb").stat().st_size > 0
