"""A run that was stopped anywhere ends in the same bits as one that was not."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import LOSSES_PER_STEP, TINY, Interruption, TinyTask, assert_same_bits, run
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.loader import make_eval_loader
from hybridvit.errors import NonFiniteError
from hybridvit.evaluate.run import answering, evaluate
from hybridvit.task import Moment, Objective
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import train


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)  # a module's fixture comes before those of its tests; other threads, other sums
    return run(dataclasses.replace(TINY, output=str(tmp_path_factory.mktemp("straight") / "run")))


STOPS = {
    "mid-epoch": ("loss", 4 * LOSSES_PER_STEP),
    "mid-accumulation": ("loss", 4 * LOSSES_PER_STEP + 1),
    "last step of an epoch": ("loss", 2 * LOSSES_PER_STEP),
    "first step of an epoch": ("loss", 3 * LOSSES_PER_STEP),
    "after validation": ("validate", 1),
    "between raw and averaged validation": ("validate", 0),
}


def places() -> list[Any]:
    """The places that test_never_lost_resume.py stops at too are nightly."""
    alone = "between raw and averaged validation"
    return [pytest.param(stop, marks=() if stop == alone else pytest.mark.nightly) for stop in STOPS]


@pytest.mark.parametrize("stop", places())
@pytest.mark.parametrize("by", [pytest.param("exception", marks=pytest.mark.nightly), "signal"])
def test_a_stopped_run_ends_in_the_same_bits(tmp_path: Path, uninterrupted: dict[str, Any], stop: str, by: str) -> None:
    recipe = dataclasses.replace(TINY, output=str(tmp_path / "run"))

    def disturb(what: str, count: int) -> None:
        if (what, count) == STOPS[stop]:
            if by == "exception":
                raise Interruption
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interruption if by == "exception" else Stopped):
        run(recipe, disturb=disturb)
    assert_same_bits(run(recipe, resume=True), uninterrupted)


def test_a_signal_in_the_last_step_saves_first_and_resuming_finishes(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    recipe = dataclasses.replace(TINY, output=str(tmp_path / "run"))

    def disturb(what: str, count: int) -> None:
        if (what, count) == ("loss", 6 * LOSSES_PER_STEP - 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="Stopped by SIGTERM after step 6 of 6"):
        run(recipe, disturb=disturb)
    result = train(recipe, resume=True, progress=False, task=TinyTask())
    assert_same_bits(list(result.history), uninterrupted["position"]["history"])


def test_workers_change_nothing(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    data = dataclasses.replace(TINY.data, workers=2)
    recipe = dataclasses.replace(TINY, data=data, output=str(tmp_path / "run"))

    def disturb(what: str, count: int) -> None:
        if (what, count) == ("loss", 9):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped) as stopped:
        run(recipe, disturb=disturb)
    assert stopped.value.code == 130
    assert_same_bits(run(recipe, resume=True), uninterrupted)


class Measured(TinyTask):
    """Notes the side of the images of each step."""

    def __init__(self, disturb: Callable[[str, int], None] = lambda *_: None) -> None:
        super().__init__(disturb)
        self.sides: dict[int, set[int]] = {}

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        self.sides.setdefault(moment.step, set()).update(batch.inputs.shape[2:])
        return super().loss(learn, model, batch, moment)


def test_a_run_on_images_of_several_sizes_resumes_to_the_bit_with_any_workers(tmp_path: Path) -> None:
    data = dataclasses.replace(TINY.data, train_sizes=(32, 48, 64))
    straight = dataclasses.replace(TINY, data=data, output=str(tmp_path / "straight"))
    stopped = dataclasses.replace(straight, data=dataclasses.replace(data, workers=2), output=str(tmp_path / "stopped"))

    def disturb(what: str, count: int) -> None:
        if (what, count) == ("loss", 9):  # within step 4
            os.kill(os.getpid(), signal.SIGTERM)

    whole, before, after = Measured(), Measured(disturb), Measured()
    train(straight, progress=False, task=whole)
    with pytest.raises(Stopped):
        train(stopped, progress=False, task=before)
    train(dataclasses.replace(straight, output=stopped.output), resume=True, progress=False, task=after)
    assert [len(sides) for sides in whole.sides.values()] == [1] * 6  # one size a step
    assert len(set.union(*whole.sides.values())) > 1
    assert before.sides | after.sides == whole.sides
    states = [newest_snapshot(Path(recipe.output) / "checkpoints") for recipe in (straight, stopped)]
    assert_same_bits(*(read_snapshot(path) for path in states if path is not None))


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(
    tmp_path: Path, uninterrupted: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = dataclasses.replace(TINY, output=str(tmp_path / "run"))
    run(recipe)
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    with (newest / "tensors.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    assert_same_bits(run(recipe, resume=True), uninterrupted)
    assert f"{newest.name} is passed over: the content of tensors.safetensors has changed" in caplog.text


def test_metrics_after_a_resume_are_those_of_a_straight_run(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    recipe = dataclasses.replace(TINY, output=str(tmp_path / "run"), save_every=2 / 3)

    def disturb(what: str, count: int) -> None:
        if (what, count) == ("loss", 4 * LOSSES_PER_STEP):  # one validation done, and nothing saved since step 2
            raise Interruption

    with pytest.raises(Interruption):
        run(recipe, disturb=disturb)
    run(recipe, resume=True)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "3", "6"]


# What test_two_processes.py calls in each of two processes.

TOGETHER = dataclasses.replace(TINY, devices=2, data=dataclasses.replace(TINY.data, total_batch=8, micro_batch=2))


class Poisoned(TinyTask):
    """The second process's images of the second step are no numbers."""

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        if os.environ["RANK"] == "1" and self.calls["loss"] == 2:
            batch.inputs[:] = float("nan")
        return super().loss(learn, model, batch, moment)


def refuse_together(folder: Path) -> None:
    """Both refuse the step of which one process has images that are no numbers, and name these images."""
    with pytest.raises(NonFiniteError) as refused:
        train(dataclasses.replace(TOGETHER, output=str(folder / "run")), progress=False, task=Poisoned())
    assert str(refused.value).count("generated/") == 4  # of rank 1's four images, on both ranks


def count_once(folder: Path) -> None:
    """Two processes evaluate an odd number of images: each image counts once."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    images = GeneratedImages(length=13)
    torch.manual_seed(0)
    model = hybridvit.create_model("fastvit_debug", num_classes=10).eval()
    correct = sum(int(model(images[i][0][None]).argmax() == images[i][1]) for i in range(13))
    loader = make_eval_loader(images, batch_size=4, rank=int(os.environ["RANK"]), world_size=2)
    with answering(model, Classify()) as answer:
        evaluation = evaluate(answer, Classify(), loader, model.card)
    assert evaluation.num_samples == 13
    assert evaluation.scores.values["top1"] == round(100 * correct / 13, 4)
    assert sum(map(sum, evaluation.scores.parts[0].counts)) == 13
