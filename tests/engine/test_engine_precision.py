"""float16 with a scaled loss. A CPU computes it slowly, so runs refuse it; here the scaler of PyTorch runs on one."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY, Interruption, TinyTask, assert_same_bits
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.errors import NonFiniteError
from hybridvit.recipe.groups import OptimConfig
from hybridvit.task import Moment, Objective
from hybridvit.training import loop
from hybridvit.training.engine import devices
from hybridvit.training.run.snapshot import read_snapshot
from hybridvit.training.train import train

HALF = dataclasses.replace(TINY, precision="16-mixed", save_every=1 / 3, keep=9, optim=OptimConfig(clip_norm=1.0))
FIRST_SCALE = 65536.0
TOO_LARGE = 1e30  # times a loss: finite in float32, as the loss is, and infinite in float16, as its gradient is


class Overflowing(TinyTask):
    """The scaled gradient of the steps in `steps` leaves float16's range, on the ranks in `ranks`."""

    steps: tuple[int, ...] = (1,)
    ranks: tuple[str, ...] = ("0",)

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        loss = super().loss(learn, model, batch, moment)
        too_large = moment.step in self.steps and os.environ.get("RANK", "0") in self.ranks
        return loss * TOO_LARGE if too_large else loss


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "check_abilities", lambda *_: None)


def snapshot(folder: str | Path, step: int) -> dict[str, Any]:
    return read_snapshot(Path(folder) / "checkpoints" / f"step-{step:09d}")


def test_a_gradient_out_of_range_changes_nothing_but_the_scale_and_a_resumed_run_agrees(tmp_path: Path) -> None:
    recipe = dataclasses.replace(HALF, output=str(tmp_path / "run"))
    train(recipe, progress=False, task=Overflowing())
    before, after, last = (snapshot(recipe.output, step) for step in (1, 2, 6))
    for part in ("model", "ema", "optimizer"):
        changed = dict(after[part]), dict(before[part])
        if part == "optimizer":
            changed = after[part]["state"], before[part]["state"]  # the learning rate is a function of the step
        assert_same_bits(*changed, part)
    assert before["scaler"]["scale"] == FIRST_SCALE
    assert after["scaler"]["scale"] == FIRST_SCALE / 2
    assert (after["position"]["step"], after["position"]["skipped"]) == (2, 1)
    assert (last["position"]["skipped"], last["position"]["skipped_in_a_row"]) == (1, 0)
    assert last["optimizer"]["state"][0]["step"].item() == 5  # of six
    assert [row["skipped_steps"] for row in last["position"]["history"]] == [1, 1]

    again = dataclasses.replace(recipe, output=str(tmp_path / "again"))

    class Interrupted(Overflowing):
        def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
            if moment.step == 3 and not hasattr(Interrupted, "was"):
                Interrupted.was = True  # type: ignore[attr-defined]
                raise Interruption
            return super().loss(learn, model, batch, moment)

    with pytest.raises(Interruption):
        train(again, progress=False, task=Interrupted())
    train(again, resume=True, progress=False, task=Interrupted())
    assert_same_bits(snapshot(again.output, 6), last)


def test_a_scale_that_never_fits_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_SKIPPED", 3)
    monkeypatch.setattr(Overflowing, "steps", (2, 3, 4, 5))
    recipe = dataclasses.replace(HALF, output=str(tmp_path / "run"))
    with pytest.raises(NonFiniteError, match=r"The last 3 steps up to 5 were skipped.*--precision bf16-mixed"):
        train(recipe, progress=False, task=Overflowing())


def test_a_loss_that_is_not_finite_ends_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TOO_LARGE", float("inf"))
    recipe = dataclasses.replace(HALF, output=str(tmp_path / "run"))
    with pytest.raises(NonFiniteError, match="Step 1 was refused: loss inf"):
        train(recipe, progress=False, task=Overflowing())
