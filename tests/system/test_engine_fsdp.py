"""Weights shared out over two processes: the run of two that have all of them, and a snapshot that one can read."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, TinyTask

from hybridvit.errors import UsageError
from hybridvit.recipe.groups import OptimConfig
from hybridvit.tasks.classify.config import MesaConfig
from hybridvit.training.engine.devices import build_fabric
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


TWO_PROCESSES = """
import dataclasses, os, signal, sys
import torch
sys.path[:0] = [{tests!r}, {tests!r} + "/system"]
torch.set_num_threads(1)
from test_engine_fsdp import SHARED_OUT, LargerTask
from tiny_runs import TinyTask, assert_same_bits, run
from hybridvit.training.run.interrupt import Stopped
from test_engine_precision import Overflowing, snapshot
from hybridvit.training.engine import devices
from hybridvit.recipe.groups import OptimConfig
from hybridvit.tasks.classify.config import MesaConfig
from hybridvit.training.train import train

straight = run(dataclasses.replace(SHARED_OUT, output={folder!r} + "/straight"))
stopped = dataclasses.replace(SHARED_OUT, output={folder!r} + "/stopped", keep=9)

def disturb(what, count):
    if (what, count) == ("loss", 9) and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)

try:
    run(stopped, disturb=disturb)
except Stopped as stop:
    assert stop.code == 143
else:
    raise AssertionError("was not stopped")
assert_same_bits(run(stopped, resume=True), straight)

# Compared by SGD, for AdamW's first steps are the signs of the gradient, which a last bit can turn; and on maps of
# more than one pixel, for a BatchNorm over two values has no gradient to speak of.
plain = dataclasses.replace(
    SHARED_OUT,
    mesa=MesaConfig(),
    data=dataclasses.replace(SHARED_OUT.data, image_size=64, total_batch=16, micro_batch=4),
    optim=OptimConfig(name="sgd", lr=0.01, clip_norm=0.5),
    schedule=dataclasses.replace(SHARED_OUT.schedule, epochs=1, warmup_epochs=0),
)
parts, whole = (
    snapshot(train(dataclasses.replace(plain, strategy=strategy, output={folder!r} + "/" + strategy),
             progress=False, task=LargerTask()).folder, 3)
    for strategy in ("fsdp", "ddp")
)
for name in ("model", "ema"):
    expected = torch.cat([value.double().flatten() for value in whole[name].values()])
    actual = torch.cat([value.double().flatten() for value in parts[name].values()])
    error = (actual - expected).abs().max() / expected.abs().max()
    print("difference of", name, error.item())
    assert error < 1e-6, (name, error)
row, other = parts["position"]["history"][0], whole["position"]["history"][0]
assert abs(row["train_loss"] - other["train_loss"]) < 1e-6 * other["train_loss"]

# A gradient of rank 1 alone leaves float16's range: both skip the step.
devices.check_abilities = lambda *_: None
Overflowing.ranks = ("1",)
for strategy in ("ddp", "fsdp"):
    half = dataclasses.replace(
        plain,
        data=SHARED_OUT.data,
        strategy=strategy,
        precision="16-mixed",
        output={folder!r} + "/half-" + strategy,
        save_every=1 / 3,
        keep=9,
    )
    train(half, progress=False, task=Overflowing())
    before, after = (snapshot(half.output, step) for step in (1, 2))
    assert_same_bits(after["model"], before["model"], strategy)
    assert_same_bits(after["ema"], before["ema"], strategy)
    assert after["scaler"]["scale"] == before["scaler"]["scale"] / 2, strategy
    assert after["position"]["skipped"] == before["position"]["skipped"] + 1, strategy
open({folder!r} + "/passed-" + os.environ["RANK"], "w").close()
"""


def test_two_processes_resume_to_the_bit_and_train_as_with_ddp_and_one_goes_on_with_their_snapshot(
    tmp_path: Path,
) -> None:
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES).format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr  # whole: what ended a process stands before what its peer says of it
    assert sorted(path.name for path in tmp_path.glob("passed-*")) == ["passed-0", "passed-1"]
    (tmp_path / "stopped" / "checkpoints" / "step-000000006" / "manifest.json").unlink()
    alone = dataclasses.replace(SHARED_OUT, devices="auto", strategy="ddp", output=str(tmp_path / "stopped"))
    result = train(alone, resume=True, allow_changes=True, progress=False, task=TinyTask())
    assert [row["step"] for row in result.history] == [3, 6]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in result.history)


def test_one_process_has_no_one_to_share_weights_with() -> None:
    with pytest.raises(UsageError, match="shares the weights out over several processes, but there is one"):
        build_fabric(dataclasses.replace(SHARED_OUT, devices=1))
