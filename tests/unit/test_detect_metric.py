"""Average precision is COCO's, to the last of its twelve numbers."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hybridvit.batch import Batch, Frame
from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, UsageError
from hybridvit.report.content import Confusion, Curve, Table
from hybridvit.tasks.detect.average_precision import Judged, average_precision, joined
from hybridvit.tasks.detect.data import Truth
from hybridvit.tasks.detect.task import Detect

IDS = (3, 7, 90)  # of the classes in the data set
SIDE = 160


def rle(dice: np.random.Generator, box: list[float]) -> dict[str, Any]:
    """An ellipse in the box, with a bite."""
    left, top, width, height = box
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((x - left - width / 2) / (width / 2)) ** 2 + ((y - top - height / 2) / (height / 2)) ** 2 < 1
    inside &= x < left + width * dice.uniform(0.6, 1)
    return coco_mask.encode(np.asfortranarray(inside, np.uint8))


@pytest.fixture(scope="module")
def judged() -> Judged:
    """60 pictures: crowds, equal scores, pictures without objects, without detections, and without both."""
    dice = np.random.default_rng(0)
    images, truths, boxes, masks = [], [], [], []
    for number in range(1, 61):
        images.append({"id": number, "height": SIDE, "width": SIDE})
        for _ in range(0 if number % 7 == 0 else dice.integers(1, 6)):
            box = [*dice.uniform(0, 90, 2), *dice.choice([12, 30, 60], 2) * dice.uniform(0.7, 1.1, 2)]
            category, mask = int(dice.integers(1, 3)), rle(dice, box)  # none of the third class
            truths.append({"image_id": number, "category_id": category, "bbox": box, "segmentation": mask,
                           "area": float(coco_mask.area(mask)), "iscrowd": int(dice.random() < 0.1)})  # fmt: skip
            for _ in range(0 if number % 5 == 0 else dice.integers(0, 3)):
                near = list(np.array(box) + dice.normal(0, 3, 4).clip(-5, 5))
                found = {"image_id": number, "category_id": int(dice.choice([category, 1, 3], p=[0.8, 0.1, 0.1])),
                         "score": float(dice.choice([0.3, 0.5, 0.9]))}  # fmt: skip
                boxes.append(found | {"bbox": near})
                masks.append(found | {"segmentation": rle(dice, near)})
        if number % 14 == 0:
            boxes.append({"image_id": number, "category_id": 2, "score": 0.7, "bbox": [5.0, 5.0, 40.0, 40.0]})
            masks.append(
                {"image_id": number, "category_id": 2, "score": 0.7, "segmentation": rle(dice, [5, 5, 40, 40])}
            )
    return Judged(images, truths, {"bbox": boxes, "segm": masks})


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_all_twelve_numbers_are_those_of_pycocotools(judged: Judged, kind: str) -> None:
    numbers, by_class, curves = average_precision(judged, kind, len(IDS))

    def theirs(entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"category_id": IDS[entry["category_id"] - 1]}

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": judged.images,
            "annotations": [theirs(each) | {"id": 10 + 3 * number} for number, each in enumerate(judged.truths)],
            "categories": [{"id": number, "name": str(number)} for number in IDS],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([theirs(each) for each in judged.found[kind]]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    np.testing.assert_allclose(numbers, evaluation.stats, atol=1e-6)
    assert 0.05 < numbers[0] < 0.9
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    for label in (0, 1):
        assert by_class[label].ap == pytest.approx(100 * precision[:, :, label].mean(), abs=1e-3)
        np.testing.assert_allclose(curves[label], precision[0, ::10, label], atol=1e-4)
    assert by_class[2].ap is None
    assert curves[2] == []


def test_the_shares_of_several_processes_are_judged_as_one(judged: Judged) -> None:
    def share(rank: int) -> Judged:
        def part(entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
            return [each for each in entries if each[key] % 2 == rank]

        found = {kind: part(entries, "image_id") for kind, entries in judged.found.items() if rank or kind == "bbox"}
        return Judged(part(judged.images, "id"), part(judged.truths, "image_id"), found)

    whole = joined([share(0), share(1)])
    assert whole.images == judged.images
    assert average_precision(whole, "bbox", 3) == average_precision(judged, "bbox", 3)


def test_nothing_found_is_worth_nothing(judged: Judged) -> None:
    numbers, by_class, _ = average_precision(judged._replace(found={}), "bbox", 3)
    assert numbers[0] == 0
    assert by_class[0].ap == 0


def card() -> ModelCard:
    return ModelCard(architecture="fastvit_debug", task="detect", class_names=("cat", "dog", "cow"),
                     class_facts={"category_ids": IDS})  # fmt: skip


def batch_of(*truths: Truth, scale: float = 1.0) -> Batch:
    """Pictures that became inputs `scale` times as large."""
    frames = tuple(
        Frame(picture_size=truth.size, crop=(0.0, 0.0, float(truth.size[1]), float(truth.size[0])),
              input_size=(round(truth.size[0] * scale), round(truth.size[1] * scale)))
        for truth in truths
    )  # fmt: skip
    return Batch(torch.zeros(len(truths), 3, 32, 32), [{"truth": each} for each in truths],
                 torch.arange(len(truths)), frames)  # fmt: skip


def truth_of(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None, masks: bool = True) -> Truth:
    filled = np.zeros((len(boxes), 100, 200), np.uint8)
    for mask, (left, top, right, bottom) in zip(filled, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = 1
    return Truth(
        size=(100, 200), boxes=np.array(boxes, float).reshape(-1, 4), labels=np.array(labels, int),
        crowd=np.array(crowd or [False] * len(boxes), bool), areas=filled.sum((1, 2)).astype(float),
        masks=tuple(coco_mask.encode(np.asfortranarray(mask)) for mask in filled) if masks else None,
    )  # fmt: skip


def answers_to(*truths: Truth, scale: float = 1.0, rows: int = 4) -> dict[str, Any]:
    """What a model gives that knows the truth; the last rows are empty."""
    boxes, scores, labels = (
        np.zeros((len(truths), rows, 4)),
        np.zeros((len(truths), rows)),
        np.zeros((len(truths), rows), int),
    )
    for number, truth in enumerate(truths):
        count = len(truth.boxes)
        boxes[number, :count], labels[number, :count] = truth.boxes * scale, truth.labels
        scores[number, :count] = np.linspace(0.9, 0.8, count)
    masks = np.ones((len(truths), rows, 28, 28), np.float32)
    return {"boxes": boxes.astype(np.float32), "scores": scores, "labels": labels, "masks": masks}


def test_a_perfect_detector_is_worth_100_whatever_the_size_of_its_input() -> None:
    truths = truth_of([[10, 10, 60, 70], [80, 20, 190, 95]], [0, 1]), truth_of([], []), truth_of([[5, 5, 45, 50]], [1])
    metric = Detect().metric(card(), num_examples=1)
    metric.update(answers_to(*truths, scale=0.5), batch_of(*truths, scale=0.5))
    scores = metric.compute()
    assert scores.values["box_ap"] == pytest.approx(100, abs=0.01)  # 101 recalls, and the last one is rounded
    assert scores.values["mask_ap"] == pytest.approx(100, abs=0.01)
    assert "box_ap_small" not in scores.values  # there is none, which is no number to draw a curve of
    assert scores.details["box_ap_small"] is None
    table, classes, confusion, *curves = scores.parts
    assert isinstance(table, Table)
    assert ["AP small", "–", "–"] in [list(row) for row in table.rows]
    assert isinstance(classes, Table)
    assert [row[0] for row in classes.rows] == ["cat", "dog", "cow"]
    assert list(classes.rows[2]) == ["cow", "–", "–", "–", "–", "0"]
    assert isinstance(confusion, Confusion)
    assert confusion.worst() == []
    assert [curve.title.split()[4] for curve in curves if isinstance(curve, Curve)] == ["box", "mask"]
    assert {y for _, y in curves[0].lines["all classes"]} == {100.0}
    assert set(curves[0].lines) == {"all classes", "cat", "dog"}
    assert [each["category_id"] for each in scores.details["classes"]] == list(IDS)
    assert all(example.right for example in scores.examples)


def test_crowds_are_neither_missed_nor_wrongly_found_and_faults_are_counted() -> None:
    truth = truth_of([[0, 0, 50, 50], [100, 0, 200, 100], [60, 60, 90, 90]], [0, 1, 2], [False, True, False])
    answers = answers_to(truth)
    answers["boxes"][0, :3] = [[0, 0, 50, 48], [120, 10, 150, 60], [0, 60, 30, 90]]
    answers["labels"][0, :3] = [1, 1, 2]  # another class, in the crowd, elsewhere
    metric = Detect().metric(card(), num_examples=2)
    metric.update(answers, batch_of(truth))
    scores = metric.compute()
    confusion = next(part for part in scores.parts if isinstance(part, Confusion))
    assert isinstance(confusion, Confusion)
    assert sorted(confusion.worst()) == [(1, "cat", "dog"), (1, "cow", "nothing"), (1, "nothing", "cow")]
    (example,) = scores.examples
    assert (example.said, example.truth, example.right) == ("found 0 of 2", "2 wrong", False)


def test_masks_are_judged_where_there_are_true_ones() -> None:
    truths = truth_of([[10, 10, 60, 70]], [0], masks=False), truth_of([], [])
    metric = Detect().metric(card())
    metric.update(answers_to(*truths), batch_of(*truths))
    values = metric.compute().values
    assert "mask_ap" not in values
    assert values["box_ap"] == pytest.approx(100, abs=0.01)


def test_what_cannot_be_judged_is_refused() -> None:
    metric = Detect().metric(card())
    with pytest.raises(UsageError, match="The file gives s4, but what a detector is worth is computed from its boxes"):
        metric.update({"s4": np.zeros(1)}, batch_of(truth_of([], [])))
    metric.update(answers_to(truth_of([], [])), batch_of(truth_of([], [])))
    with pytest.raises(DatasetError, match="None of the 1 pictures has an object to find"):
        metric.compute()
