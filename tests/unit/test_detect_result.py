"""Detections lie in the picture that they were found in, are told, drawn, and compared as a person would."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from hybridvit.batch import Frame
from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.tasks.detect.data_masks import decode
from hybridvit.tasks.detect.overlap import overlap
from hybridvit.tasks.detect.result import DetectResult, pasted
from hybridvit.tasks.detect.task import Detect

CARD = ModelCard(
    architecture="fastvit_debug", task="detect", class_names=("cat", "dog", "cow"),
    class_facts={"category_ids": (0, 3, 90)},
)  # fmt: skip
FRAME = Frame(picture_size=(100, 200), crop=(0.0, 0.0, 200.0, 100.0), input_size=(50, 100))


def outputs(**changes: Any) -> dict[str, np.ndarray]:
    """Three detections and an empty row of a 50x100 input."""
    masks = np.zeros((1, 4, 28, 28), np.float32)
    masks[..., :14] = 1  # the left halves
    return {
        "boxes": np.array([[[10, 5, 30, 25], [0, 0, 20, 20], [60, 10, 120, 60], [0, 0, 0, 0]]], np.float32),
        "scores": np.array([[0.4, 0.9, 0.6, 0.0]], np.float32),
        "labels": np.array([[2, 1, 0, 0]]),
        "masks": masks,
    } | changes


def result(**changes: Any) -> DetectResult:
    (found,) = Detect().results(outputs(**changes), [FRAME], CARD)
    return found


def test_boxes_are_those_of_the_original_picture_with_the_ids_of_the_data_set() -> None:
    answer = json.loads(json.dumps(result().to_dict()))["predictions"]
    assert [(each["category_id"], each["class"]) for each in answer] == [(3, "dog"), (0, "cat"), (90, "cow")]
    assert [each["bbox"] for each in answer] == [[0, 0, 40, 40], [120, 20, 80, 80], [20, 10, 40, 40]]
    assert [round(each["score"], 3) for each in answer] == [0.9, 0.6, 0.4]
    masks = decode([{**each["segmentation"], "counts": each["segmentation"]["counts"].encode()} for each in answer])
    assert masks.shape == (3, 100, 200)
    assert masks[2].sum() == 20 * 40  # the left half of the box
    assert masks[2][10:50, 20:40].all()


def test_lines_say_what_is_sure_and_most_says_how_many() -> None:
    assert result().lines() == ["   90.00 %  dog  40x40 px at 0, 0", "   60.00 %  cat  80x80 px at 120, 20"]
    (few,) = Detect().results(outputs(), [FRAME], CARD, most=1)
    assert few.lines() == ["   90.00 %  dog  40x40 px at 0, 0"]
    assert len(few.to_dict()["predictions"]) == 1
    none = result(scores=np.zeros((1, 4), np.float32))
    assert none.lines() == ["  nothing with a score of 50 % or more"]
    assert none.to_dict() == {"predictions": []}
    with pytest.raises(UsageError, match="gives 4 detections of a picture, fewer than 9"):
        Detect().results(outputs(), [FRAME], CARD, most=9)
    with pytest.raises(UsageError, match="gives logits, so it says nothing of boxes"):
        Detect().results({"logits": np.zeros((1, 3))}, [FRAME], CARD)


def test_a_mask_is_pasted_to_the_pixel() -> None:
    """Whole probabilities fill the box, half of them the half; what is cut off at the edge of the picture is not."""
    (whole,) = decode([pasted(np.ones((28, 28)), np.array([3.0, 4, 31, 32]), (40, 50))])
    assert whole.sum() == 28 * 28
    assert whole[4:32, 3:31].all()
    ramp = np.tile(np.linspace(0, 1, 28), (28, 1))
    (half,) = decode([pasted(ramp, np.array([0.0, 0, 280, 14]), (14, 280))])
    assert half[:, :135].sum() == 0
    assert half[:, 145:].all()
    (cut,) = decode([pasted(np.ones((28, 28)), np.array([45.0, 35, 50, 40]), (40, 50))])
    assert cut.sum() == 25
    for box in ([5.0, 5, 5, 9], [60.0, 5, 70, 9]):
        (empty,) = decode([pasted(np.ones((28, 28)), np.array(box), (40, 50))])
        assert empty.sum() == 0


def test_a_picture_is_drawn_on_a_copy() -> None:
    picture = Image.new("RGB", (200, 100), "white")
    drawn = result().draw(picture)
    assert picture.getpixel((1, 1)) == (255, 255, 255)
    assert drawn.size == picture.size
    assert drawn.getpixel((10, 30)) != (255, 255, 255)  # under the mask
    assert drawn.getpixel((100, 80)) == (255, 255, 255)
    without = dataclasses.replace(result(), masks=None).draw(picture)
    assert without.getpixel((10, 30)) == (255, 255, 255)
    assert without.getpixel((0, 30)) in result().colours.values()


def test_detections_agree_where_the_sure_ones_are_the_same() -> None:
    one = result()
    assert one.agrees(one)
    shuffled = outputs(
        boxes=outputs()["boxes"][:, [2, 1, 0, 3]] + 0.001, scores=np.array([[0.601, 0.899, 0.4, 0.0]]),
        labels=np.array([[0, 1, 2, 0]]),
    )  # fmt: skip
    assert one.agrees(Detect().results(shuffled, [FRAME], CARD)[0])
    assert one.agrees(result(scores=np.array([[0.1, 0.9, 0.6, 0.0]])))  # nobody is sure of the third
    assert not one.agrees(result(labels=np.array([[2, 2, 0, 0]])))
    assert not one.agrees(result(scores=np.array([[0.4, 0.9, 0.0, 0.0]])))
    assert not one.agrees(result(scores=np.array([[0.7, 0.9, 0.6, 0.0]])))
    assert not one.agrees(result(boxes=outputs()["boxes"] + 1))


def test_overlap_is_that_of_torchvision() -> None:
    corners = torch.rand(2, 6, 4) * 50
    corners[..., 2:] += corners[..., :2]
    expected = box_iou(corners[0], corners[1]).numpy()
    np.testing.assert_allclose(overlap(corners[0].double().numpy(), corners[1].double().numpy()), expected, atol=1e-6)
    assert overlap(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
