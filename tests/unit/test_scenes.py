"""The scenes of the demonstrations: what is written is what was drawn, as other tools read it."""

import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as run_lengths
from PIL import Image, ImageOps

from hybridvit.data.scenes import (
    CATEGORY_IDS,
    CLASSES,
    PALETTE,
    scene,
    write_detection,
    write_segmentation,
)
from hybridvit.errors import DatasetError

NUM_TRAINING, NUM_VALIDATION = 102, 3


def test_a_scene_is_that_of_its_number_and_seed() -> None:
    assert np.array_equal(scene(3).pixels, scene(3).pixels)
    assert not np.array_equal(scene(3).pixels, scene(4).pixels)
    assert not np.array_equal(scene(3).pixels, scene(3, seed=1).pixels)
    assert scene(99).instances == ()
    assert not scene(99).labels.any()


def test_masks_are_written_with_indices_of_classes_and_their_colours(tmp_path: Path) -> None:
    assert write_segmentation(tmp_path / "scenes", train=NUM_TRAINING, val=NUM_VALIDATION)
    masks = sorted((tmp_path / "scenes/annotations/training").iterdir())
    assert len(masks) == NUM_TRAINING
    for number in (0, 3, 99):
        with Image.open(masks[number]) as mask, Image.open(_picture_of(masks[number])) as picture:
            assert np.array_equal(np.array(mask), scene(number).labels)
            assert mask.getpalette()[: 3 * len(PALETTE)] == np.array(PALETTE).flatten().tolist()
            upright = np.array(ImageOps.exif_transpose(picture), float)
        assert np.abs(upright - scene(number).pixels).mean() < 12, "JPEG changes the noise, not the picture"
    assert not write_segmentation(tmp_path / "scenes", train=NUM_TRAINING, val=NUM_VALIDATION)
    with pytest.raises(DatasetError, match="files that are not the 10 scenes with masks"):
        write_segmentation(tmp_path / "scenes", train=4, val=1)


def test_annotations_are_those_that_other_tools_read(tmp_path: Path) -> None:
    write_detection(tmp_path / "scenes", train=NUM_TRAINING, val=NUM_VALIDATION)
    listed = json.loads((tmp_path / "scenes/annotations/instances_train2017.json").read_text(encoding="utf-8"))
    assert [category["id"] for category in listed["categories"]] == list(CATEGORY_IDS)
    for annotation in listed["annotations"]:
        drawn = scene(annotation["image_id"])
        encoded = run_lengths.frPyObjects(annotation["segmentation"], *drawn.pixels.shape[:2])
        mask = run_lengths.decode(encoded).astype(bool)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == run_lengths.toBbox(encoded).tolist()
        category = CATEGORY_IDS.index(annotation["category_id"])
        assert any(each.category == category and np.array_equal(each.mask, mask) for each in drawn.instances)
    assert sum(annotation["iscrowd"] for annotation in listed["annotations"]) == 1
    empty = {image["id"] for image in listed["images"]} - {each["image_id"] for each in listed["annotations"]}
    assert empty == {99}
    assert {each["category_id"] for each in listed["annotations"]} == set(CATEGORY_IDS[: len(CLASSES)])


def _picture_of(mask: Path) -> Path:
    return mask.parents[2] / "images" / mask.parent.name / f"{mask.stem}.jpg"
