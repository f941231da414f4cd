"""Detections of a large picture by tiles: each object once, whole where a tile shows it whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.tiles import Tile, TilePart, Tiling
from hybridvit.evaluate.run import evaluate
from hybridvit.evaluate.tiled import answering_by_tiles, in_own_size
from hybridvit.task import Outputs
from hybridvit.tasks.detect.task import Detect
from hybridvit.tasks.detect.tiles import joined

SIZE = (100, 180)  # height, width
TILING = Tiling(side=100, overlap=0.2)  # two tiles, which share columns 80 to 100
SCALE = 2  # of the input on the tile


def of_tile(tile: Tile, objects: Sequence[Sequence[float]], doubt: float = 0.0, rows: int = 6) -> TilePart:
    """What a perfect detector says: the parts of objects (left, top, right, bottom, score, label) in the tile."""
    found = []
    for *box, score, label in objects:
        seen = np.clip(np.array(box) - [tile.left, tile.top] * 2, 0, tile.width)
        if (seen[2:] - seen[:2] > 0).all():
            found.append((seen * SCALE, score - doubt, label))
    outputs = {
        "boxes": np.zeros((1, rows, 4), np.float32),
        "scores": np.zeros((1, rows), np.float32),
        "labels": np.zeros((1, rows), np.int64),
        "masks": np.zeros((1, rows, 28, 28), np.float32),
    }
    for place, (box, score, label) in enumerate(found):
        outputs["boxes"][0, place], outputs["scores"][0, place], outputs["labels"][0, place] = box, score, label
        outputs["masks"][0, place] = score
    frame = Frame(picture_size=(100, 100), crop=(0.0, 0.0, 100.0, 100.0), input_size=(200, 200))
    return TilePart(tile, outputs, frame)


def found_in(outputs: Outputs) -> list[tuple[list[float], float, int]]:
    sure = outputs["scores"][0] > 0
    rows = zip(outputs["boxes"][0][sure], outputs["scores"][0][sure], outputs["labels"][0][sure], strict=True)
    return [(box.round(3).tolist(), round(float(score), 3), int(label)) for box, score, label in rows]


def test_an_object_that_two_tiles_show_whole_is_there_once() -> None:
    left, right = TILING.tiles(SIZE[::-1])
    objects = [(82, 10, 98, 30, 0.9, 1), (5, 5, 30, 40, 0.8, 0), (150, 50, 170, 90, 0.7, 0)]
    outputs = joined([of_tile(left, objects, doubt=0.1), of_tile(right, objects)], SIZE)
    assert found_in(outputs) == [
        ([82, 10, 98, 30], 0.9, 1),
        ([5, 5, 30, 40], 0.7, 0),
        ([150, 50, 170, 90], 0.7, 0),
    ]
    assert outputs["masks"][0, 0, 0, 0] == np.float32(0.9)  # of the kept one


def test_a_part_that_an_edge_cuts_off_gives_way_to_the_whole_whatever_its_score() -> None:
    left, right = TILING.tiles(SIZE[::-1])
    objects = [(85, 10, 120, 30, 0.9, 0)]  # the left tile shows less than half
    outputs = joined([of_tile(left, objects), of_tile(right, objects, doubt=0.3)], SIZE)
    assert found_in(outputs) == [([85, 10, 120, 30], 0.6, 0)]


def test_boxes_of_two_classes_and_small_ones_within_large_ones_stay() -> None:
    left, right = TILING.tiles(SIZE[::-1])
    objects = [(10, 10, 60, 60, 0.9, 0), (10, 10, 60, 60, 0.8, 1), (20, 20, 40, 40, 0.7, 0), (0, 70, 20, 100, 0.6, 0)]
    outputs = joined([of_tile(left, objects), of_tile(right, objects)], SIZE)
    assert [score for _, score, _ in found_in(outputs)] == [0.9, 0.8, 0.7, 0.6]


def test_there_are_as_many_rows_as_of_an_ordinary_picture_and_none_is_an_answer_too() -> None:
    outputs = joined([of_tile(tile, []) for tile in TILING.tiles(SIZE[::-1])], SIZE)
    assert {name: values.shape for name, values in outputs.items()} == {
        "boxes": (1, 6, 4),
        "scores": (1, 6),
        "labels": (1, 6),
        "masks": (1, 6, 28, 28),
    }
    assert found_in(outputs) == []


def colours(images: np.ndarray) -> Outputs:
    """A perfect detector of one red and one green box in each picture (n c h w, not normalised)."""
    boxes, scores = np.zeros((len(images), 4, 4), np.float32), np.zeros((len(images), 4), np.float32)
    for number, image in enumerate(images):
        for label in (0, 1):
            rows, columns = np.nonzero(image[label] > 0.5)
            if len(rows):
                boxes[number, label] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                scores[number, label] = 0.9
    return {"boxes": boxes, "scores": scores, "labels": np.tile([0, 1, 0, 0], (len(images), 1))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures larger than a tile, with boxes in a table."""
    rows = []
    for number, (red, green) in enumerate(
        [((85, 10, 125, 30), (5, 50, 30, 80)), ((150, 60, 178, 99), (82, 0, 98, 20))]
    ):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        for channel, (left, top, right, bottom) in enumerate((red, green)):
            pixels[top:bottom, left:right, channel] = 255
            rows.append(f"{number}.png,{left},{top},{right},{bottom},{('cat', 'dog')[channel]}")
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "val.csv").write_text("\n".join(["file,x1,y1,x2,y2,label", *rows]), encoding="utf-8")
    return tmp_path


def test_what_a_perfect_detector_says_to_tiles_is_judged_as_perfect(folder: Path) -> None:
    preprocessing = Preprocessing(crop_mode="fit", fit_px=(100, 100), mean=(0.0,) * 3, std=(1.0,) * 3)
    card = ModelCard(
        architecture="fastvit_debug",
        task="detect",
        class_names=("cat", "dog"),
        class_facts={"category_ids": (1, 2)},
        preprocessing=preprocessing,
    )
    task, asked = Detect(), list[tuple[int, ...]]()

    def answer(images: np.ndarray) -> Outputs:
        asked.append(images.shape)
        return colours(images)

    samples = task.labelled(str(folder / "val.csv"), in_own_size(card))
    loader = make_eval_loader(samples, collate=task.collate, batch_size=1, workers=0)
    found = evaluate(answering_by_tiles(TILING, answer, task, card, at_once=2), task, loader, card)
    loader.close()
    assert found.scores.values["box_ap"] == 100
    assert asked == [(2, 3, 100, 100)] * 2
