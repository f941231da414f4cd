"""Weights shared out over two processes: the run of two that have all of them, and a snapshot that one can read."""

import dataclasses
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_engine_precision import Overflowing, snapshot
from tiny_runs import TINY, TinyTask, assert_same_bits, run

from hybridvit.errors import UsageError
from hybridvit.recipe.groups import OptimConfig
from hybridvit.tasks.classify.config import MesaConfig
from hybridvit.training.engine import devices
from hybridvit.training.engine.devices import build_fabric
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.train import train

SHARED_OUT = dataclasses.replace(
    TINY,
    devices=2,
    strategy="fsdp",
    data=dataclasses.replace(TINY.data, micro_batch=2),
    optim=OptimConfig(clip_norm=0.5),
    mesa=MesaConfig(weight=0.5, start=0.0),
)


class LargerTask(TinyTask):
    """Three steps of 16 images."""

    length = 50


# What test_two_processes.py calls in each of two processes.


def share_out(folder: Path) -> None:
    """A run with its weights shared out resumes to the bit, and trains as one whose processes have all of them."""
    straight = run(dataclasses.replace(SHARED_OUT, output=str(folder / "straight")))
    stopped = dataclasses.replace(SHARED_OUT, output=str(folder / "stopped"), keep=9)

    def disturb(what: str, count: int) -> None:
        if (what, count) == ("loss", 9) and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as stop:
        run(stopped, disturb=disturb)
    assert stop.value.code == 143
    assert_same_bits(run(stopped, resume=True), straight)

    results = {}
    for strategy in ("fsdp", "ddp"):
        recipe = dataclasses.replace(PLAIN, strategy=strategy, output=str(folder / strategy))
        train(recipe, progress=False, task=LargerTask())
        results[strategy] = snapshot(recipe.output, 3)
    parts, whole = results["fsdp"], results["ddp"]
    for name in ("model", "ema"):
        expected = torch.cat([value.double().flatten() for value in whole[name].values()])
        actual = torch.cat([value.double().flatten() for value in parts[name].values()])
        error = (actual - expected).abs().max() / expected.abs().max()
        print("difference of", name, error.item())
        assert error < 1e-6, (name, error)
    row, other = parts["position"]["history"][0], whole["position"]["history"][0]
    assert abs(row["train_loss"] - other["train_loss"]) < 1e-6 * other["train_loss"]


# Compared by SGD, for AdamW's first steps are the signs of the gradient, which a last bit can turn; and on maps of
# more than one pixel, for a BatchNorm over two values has no gradient to speak of.
PLAIN = dataclasses.replace(
    SHARED_OUT,
    mesa=MesaConfig(),
    data=dataclasses.replace(SHARED_OUT.data, image_size=64, total_batch=16, micro_batch=4),
    optim=OptimConfig(name="sgd", lr=0.01, clip_norm=0.5),
    schedule=dataclasses.replace(SHARED_OUT.schedule, epochs=1, warmup_epochs=0),
)


class OverflowingAlone(Overflowing):
    """A gradient of the second process alone leaves float16's range."""

    ranks = ("1",)


def skip_together(folder: Path, strategies: Sequence[str] = ("ddp",)) -> None:
    """Both processes skip the step of which one has a gradient out of range."""
    for strategy in strategies:
        half = dataclasses.replace(
            PLAIN,
            data=SHARED_OUT.data,
            strategy=strategy,
            precision="16-mixed",
            output=str(folder / strategy),
            save_every=1 / 3,
            keep=9,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "check_abilities", lambda *_: None)
            train(half, progress=False, task=OverflowingAlone())
        before, after = (snapshot(half.output, step) for step in (1, 2))
        assert_same_bits(after["model"], before["model"], strategy)
        assert_same_bits(after["ema"], before["ema"], strategy)
        assert after["scaler"]["scale"] == before["scaler"]["scale"] / 2, strategy
        assert after["position"]["skipped"] == before["position"]["skipped"] + 1, strategy


def skip_together_sharing_weights(folder: Path) -> None:
    skip_together(folder, ["fsdp"])


def test_one_process_has_no_one_to_share_weights_with() -> None:
    with pytest.raises(UsageError, match="shares the weights out over several processes, but there is one"):
        build_fabric(dataclasses.replace(SHARED_OUT, devices=1))
