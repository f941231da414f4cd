"""One process, then two, then one again: the same images in the same steps, and the same losses."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, TinyTask

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.generated import GeneratedImages
from hybridvit.task import Sample, Splits
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.train import train

# Without BatchNorm, mixing and drop-path nothing depends on which process computes an image.
ELASTIC = dataclasses.replace(
    TINY,
    model="swin_debug_hat",
    model_options={},
    augment=dataclasses.replace(AugmentConfig(), rand_augment="", mixup=0.0, cutmix=0.0),
    data=dataclasses.replace(TINY.data, image_size=64, micro_batch=4),
    validate_every=1 / 3,
    save_every=1 / 3,
    optim=dataclasses.replace(TINY.optim, clip_norm=1.0),
)


class Noted(GeneratedImages):
    """Keeps the epoch and number of each image drawn."""

    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        self.drawn.append((epoch, index))
        return super().draw(epoch, index, step)

    drawn: list[tuple[int, int]]


class NotingTask(TinyTask):
    """Writes the images of each step to output/STEP-RANK.json, and gets SIGTERM once in step `stop_in`."""

    stop_in: int | None = None

    def open(self, recipe: ClassifyRecipe) -> Splits:
        self.images = Noted(length=26, image_size=(64, 64), training=True)
        self.images.drawn = []
        self.notes = Path(recipe.output + "-notes")
        self.notes.mkdir(exist_ok=True)
        return dataclasses.replace(super().open(recipe), train=self.images)

    def loss(self, learn, model, batch, moment):  # type: ignore[no-untyped-def]
        note = self.notes / f"{moment.step}-{os.environ.get('RANK', '0')}.json"
        earlier = json.loads(note.read_text()) if note.exists() else []
        note.write_text(json.dumps(earlier + self.images.drawn))
        self.images.drawn = []
        if not earlier and moment.step == self.stop_in and os.environ.get("RANK", "0") == "0":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(learn, model, batch, moment)


def images_of_steps(output: Path) -> list[list[list[int]]]:
    notes = Path(f"{output}-notes")
    return [
        sorted(image for note in notes.glob(f"{step}-*.json") for image in json.loads(note.read_text()))
        for step in range(6)
    ]


ON_TWO = """
import sys
import torch
sys.path[:0] = [{tests!r}, {tests!r} + "/system"]
torch.set_num_threads(1)
from test_engine_elastic import ELASTIC, NotingTask
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.train import train
import dataclasses

NotingTask.stop_in = 3
try:
    train(dataclasses.replace(ELASTIC, output={output!r}), resume=True, progress=False, task=NotingTask())
except Stopped:
    open({output!r} + "-stopped", "a").write("x")
"""


def test_a_run_goes_from_one_process_to_two_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = train(dataclasses.replace(ELASTIC, output=str(tmp_path / "straight")), progress=False, task=NotingTask())
    output = tmp_path / "elastic"
    elastic = dataclasses.replace(ELASTIC, output=str(output))
    monkeypatch.setattr(NotingTask, "stop_in", 1)
    with pytest.raises(Stopped):
        train(elastic, progress=False, task=NotingTask())
    monkeypatch.undo()
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(ON_TWO).format(tests=str(Path(__file__).parents[1]), output=str(output)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(f"{output}-stopped").read_text(encoding="utf-8") == "xx"
    result = train(elastic, resume=True, progress=False, task=NotingTask())
    assert (output.with_name("elastic-notes") / "2-1.json").exists()  # the second process had its part
    assert images_of_steps(output) == images_of_steps(tmp_path / "straight")
    for key in ("train_loss", "loss", "ema_loss"):
        losses = torch.tensor([row[key] for row in result.history], dtype=torch.float64)
        expected = torch.tensor([row[key] for row in straight.history], dtype=torch.float64)
        assert len(losses) == 6
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0.0)
