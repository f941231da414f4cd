"""A detector is trained on real files with sizes that change from step to step, resumed to the bit, and used."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hybridvit
from hybridvit.data.scenes import CATEGORY_IDS, CLASSES, write_detection
from hybridvit.errors import UsageError
from hybridvit.tasks.detect.config import SMALL_RCNN
from hybridvit.tasks.detect.result import DetectResult

KEYS: dict[str, Any] = {
    "model": "fastvit_debug",
    "data.source": "files",
    "data.image_size": 48,
    "data.max_size": 64,
    "data.train_sizes": "[32,40,48]",
    "data.total_batch": 4,
    "data.workers": 0,
    "schedule.epochs": 2,
    "schedule.warmup_epochs": 0,
    "augment.resize": "detr",
    "augment.crop_sides": "[40,56]",
    "augment.crop_range": "[32,48]",
    "augment.photometric": 0.5,
    "save_every": 0.5,
    "accelerator": "cpu",
    **{f"head_options.{name}": value for name, value in SMALL_RCNN.items()},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fourth picture lies on its side, the sixth shows a crowd."""
    folder = tmp_path_factory.mktemp("scenes") / "set"
    write_detection(folder, train=8, val=2)
    return folder


def test_a_run_goes_on_to_the_bit_and_what_it_made_is_used(scenes: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    keys = KEYS | {"data.root": str(scenes), "output": str(tmp_path / "run")}
    straight = hybridvit.train("detect_scenes", keys, progress=False)
    weights = load_file(straight.model)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.rmtree(max(checkpoints.iterdir(), key=lambda path: int(path.name.removeprefix("step-"))))
    resumed = hybridvit.train("detect_scenes", keys, resume=True, progress=False)
    assert all(torch.equal(value, weights[name]) for name, value in load_file(resumed.model).items())

    page = straight.report.read_text(encoding="utf-8")
    assert "<h2>At every threshold</h2>" in page
    assert "Average precision and recall, in %" in page

    model: Any = hybridvit.load(straight.model)
    assert model.card.class_names == CLASSES
    assert model.card.class_facts == {"category_ids": CATEGORY_IDS}
    found = hybridvit.evaluate(straight.model, scenes)
    assert found.num_samples == 2
    assert {"box_ap", "mask_ap", "box_ap50", "mask_ap50"} <= set(found.scores.values)
    assert found.scores.values["box_ap"] == pytest.approx(straight.best, abs=1e-3)
    (answer,) = hybridvit.predict(straight.model, scenes / "val2017" / "scene_00008.jpg").values()
    assert isinstance(answer, DetectResult)
    for each in json.loads(json.dumps(answer.to_dict()))["predictions"]:
        assert each["category_id"] in CATEGORY_IDS


def test_masks_are_learnt_where_there_are_some(scenes: Path, tmp_path: Path) -> None:
    list_ = scenes / "annotations" / "instances_train2017.json"
    boxes = tmp_path / "boxes"
    shutil.copytree(scenes, boxes)
    content = json.loads(list_.read_text(encoding="utf-8"))
    for each in content["annotations"]:
        del each["segmentation"]
    (boxes / "annotations" / list_.name).write_text(json.dumps(content), encoding="utf-8")
    keys = KEYS | {"data.root": str(boxes), "output": str(tmp_path / "run")}
    with pytest.raises(UsageError, match=r"'head' is 'mask_rcnn', which learns masks.*Use --head faster_rcnn"):
        hybridvit.train("detect_scenes", keys, progress=False)
