"""One process, then two, then one again: the same images in the same steps, and the same losses."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, TinyTask

from hybridvit.batch import Sample
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.generated import GeneratedImages
from hybridvit.task import Splits
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


def begin_alone(output: Path) -> None:
    """One process, which is stopped in its second step."""
    stop_in(1, dataclasses.replace(ELASTIC, output=str(output)))


def go_on_with_two(folder: Path) -> None:
    """What test_two_processes.py calls in each of two processes: they go on, and are stopped in the fourth step."""
    stop_in(3, dataclasses.replace(ELASTIC, output=str(folder / "elastic")), resume=True)


def stop_in(step: int, recipe: ClassifyRecipe, *, resume: bool = False) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NotingTask, "stop_in", step)
        with pytest.raises(Stopped):
            train(recipe, resume=resume, progress=False, task=NotingTask())


def end_alone(folder: Path) -> None:
    """One process again ends the run: as one that had all of it."""
    straight, elastic = (dataclasses.replace(ELASTIC, output=str(folder / name)) for name in ("straight", "elastic"))
    expected = train(straight, progress=False, task=NotingTask())
    result = train(elastic, resume=True, progress=False, task=NotingTask())
    assert (folder / "elastic-notes" / "2-1.json").exists()  # the second process had its part
    assert images_of_steps(folder / "elastic") == images_of_steps(folder / "straight")
    for key in ("train_loss", "loss", "ema_loss"):
        losses, those = (
            torch.tensor([row[key] for row in each.history], dtype=torch.float64) for each in (result, expected)
        )
        assert len(losses) == 6
        torch.testing.assert_close(losses, those, rtol=1e-5, atol=0.0)
