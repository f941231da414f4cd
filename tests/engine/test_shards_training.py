"""Whole runs from shards and Hugging Face data sets."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_sets import pack, png, write_folder, write_tar
from tiny_runs import WatchedTask, assert_same_bits

from hybridvit.batch import Sample
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.shards.scan import index_folder
from hybridvit.errors import DatasetError, UsageError
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.task import Splits
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import train


def recipe_for(root: Path, output: Path, **data: Any) -> ClassifyRecipe:
    settings = {"source": "shards", "image_size": 32, "total_batch": 8, "workers": 0} | data
    if settings["source"] == "shards":
        settings["shuffle_shards"] = 2
    return ClassifyRecipe(
        model="fastvit_debug",
        data=ClassifyData(root=str(root), **settings),
        augment=AugmentConfig(),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        ema=EmaConfig(decay=0.9),
        accelerator="cpu",
        output=str(output),
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return packed(tmp_path)


def packed(folder: Path) -> Path:
    """folder/shards with the splits train and val, of images in folder/photos."""
    (folder / "shards").mkdir()
    pack(write_folder(folder / "photos/train"), folder / "shards/train")
    pack(write_folder(folder / "photos/val", per_class=2), folder / "shards/val")
    return folder / "shards"


class Watched(WatchedTask):
    """Stops itself by SIGTERM in the loss of one step."""

    stop_at = -1

    def loss(self, learn: Any, model: Any, batch: Any, moment: Any) -> Any:
        if moment.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(learn, model, batch, moment)


class StopsInMidEpoch(Watched):
    stop_at = 4  # the second of the three steps of the second epoch


def final_state(folder: Path) -> dict[str, Any]:
    newest = newest_snapshot(folder / "checkpoints")
    assert newest is not None
    return read_snapshot(newest)


def test_a_run_from_shards_that_was_stopped_in_mid_epoch_ends_in_the_same_bits(shards: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    straight = train(recipe_for(shards, tmp_path / "straight"), progress=False)
    stopped = recipe_for(shards, tmp_path / "stopped", workers=2)
    with pytest.raises(Stopped):
        train(stopped, progress=False, task=StopsInMidEpoch())
    moved = shards.rename(tmp_path / "moved")  # the place is not part of what a run is
    resumed = train(recipe_for(moved, tmp_path / "stopped", workers=1), resume=True, progress=False)
    assert_same_bits(final_state(resumed.folder), final_state(straight.folder))


def test_a_run_from_a_hugging_face_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    cells = [{"bytes": png(number), "path": None} for number in range(20)]
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 10}, features=features)
    datasets.disable_progress_bars()
    datasets.DatasetDict(train=rows).save_to_disk(str(tmp_path / "set"))
    torch.set_num_threads(1)
    result = train(
        recipe_for(tmp_path / "set", tmp_path / "run", source="huggingface", val_share=0.2, workers=1), progress=False
    )
    assert result.model.exists()


@pytest.mark.parametrize(
    ("train_labels", "val_labels", "message"),
    [
        ([0, 0, 0], [0], r"The training images have 1 class \('0'\): every answer would be right"),
        ([0, 1, 2], [3], r"has 1 class that the 3 known ones do not include: '3'"),
    ],
)
def test_unfit_shards_are_refused_before_the_run_folder_exists(
    tmp_path: Path, train_labels: list[int], val_labels: list[int], message: str
) -> None:
    for split, labels in (("train", train_labels), ("val", val_labels)):
        members: dict[str, bytes] = {}
        for number, label in enumerate(labels * 8):
            members |= {f"{number}.png": png(number), f"{number}.cls": str(label).encode()}
        write_tar(tmp_path / split / "a.tar", members)
        index_folder(tmp_path / split)
    with pytest.raises(DatasetError, match=message):
        train(recipe_for(tmp_path, tmp_path / "run"), progress=False)
    assert not (tmp_path / "run").exists()


def test_keys_of_another_source_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shards cannot be held out in part.*hybridvit shard FOLDER OUTPUT"):
        recipe_for(shards, tmp_path / "run", val_share=0.2)
    message = r"'data.image_column' is for data.source table and huggingface, but data.source is 'shards'"
    with pytest.raises(UsageError, match=message):
        recipe_for(shards, tmp_path / "run", image_column="photo")
    with pytest.raises(UsageError, match=r"'data.cache_gb' is for data.source shards, but data.source is 'folder'"):
        recipe_for(shards, tmp_path / "run", source="folder", cache_gb=1.0)


class Counting(Watched):
    """Notes the epoch and number of each sample drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def open(self, recipe: ClassifyRecipe) -> Splits:
        splits = super().open(recipe)
        draw = splits.train.draw

        def counted(epoch: int, index: int, step: int = 0) -> Sample:
            sample = draw(epoch, index, step)
            self.seen.append((epoch, sample.number))
            return sample

        splits.train.draw = counted  # type: ignore[method-assign]
        return splits


def see_every_sample_once(folder: Path) -> None:
    """What test_two_processes.py calls in each of two processes: train on folder/shards, and note what was drawn."""
    task = Counting()
    recipe = dataclasses.replace(recipe_for(folder / "shards", folder / "run"), devices=2)
    train(recipe, progress=False, task=task)
    (folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(task.seen), encoding="utf-8")
