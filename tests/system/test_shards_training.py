"""Whole runs from shards and Hugging Face data sets."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_sets import pack, png, write_folder, write_tar
from tiny_runs import WatchedTask, assert_same_bits

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.shards.scan import index_folder
from hybridvit.errors import DatasetError, UsageError
from hybridvit.recipe.groups import DataConfig, EmaConfig, ScheduleConfig
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import train


def recipe_for(root: Path, output: Path, **data: Any) -> ClassifyRecipe:
    settings = {"source": "shards", "image_size": 32, "total_batch": 8, "workers": 0} | data
    if settings["source"] == "shards":
        settings["shuffle_shards"] = 2
    return ClassifyRecipe(
        model="fastvit_debug",
        data=DataConfig(root=str(root), **settings),
        augment=AugmentConfig(),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        ema=EmaConfig(decay=0.9),
        accelerator="cpu",
        output=str(output),
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    pack(write_folder(tmp_path / "photos/train"), tmp_path / "shards/train")
    pack(write_folder(tmp_path / "photos/val", per_class=2), tmp_path / "shards/val")
    return tmp_path / "shards"


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
        ([0, 1, 2], [3], r"has 1 classes that the 3 known ones do not include: '3'"),
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
    with pytest.raises(UsageError, match=r"'data.image_column' is for data.source huggingface, but .* is 'shards'"):
        recipe_for(shards, tmp_path / "run", image_column="photo")
    with pytest.raises(UsageError, match=r"'data.cache_gb' is for data.source shards, but data.source is 'folder'"):
        recipe_for(shards, tmp_path / "run", source="folder", cache_gb=1.0)


TWO_PROCESSES = """
import json, os, sys
import torch
sys.path[:0] = [{tests!r}, {tests!r} + "/system"]
torch.set_num_threads(1)
from pathlib import Path
from test_shards_training import Watched, recipe_for
from hybridvit.training.train import train
import dataclasses

class Counting(Watched):
    seen = []
    def open(self, recipe):
        splits = super().open(recipe)
        draw = splits.train.draw
        def counted(epoch, index, step):
            sample = draw(epoch, index, step)
            Counting.seen.append((epoch, sample.number))
            return sample
        splits.train.draw = counted
        return splits

recipe = dataclasses.replace(recipe_for(Path({shards!r}), Path({output!r})), devices=2)
train(recipe, progress=False, task=Counting())
Path({output!r} + "-" + os.environ["RANK"]).write_text(json.dumps(Counting.seen))
"""


def test_two_processes_see_every_sample_of_an_epoch_once_between_them(shards: Path, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    tests = str(Path(__file__).parent.parent)
    code = textwrap.dedent(TWO_PROCESSES).format(tests=tests, shards=str(shards), output=str(tmp_path / "run"))
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [json.loads((tmp_path / f"run-{rank}").read_text()) for rank in (0, 1)]
    once = Counter((epoch, sample) for epoch in (0, 1) for sample in range(24))
    assert Counter(map(tuple, seen[0] + seen[1])) == once
    assert len(seen[0]) == len(seen[1])
