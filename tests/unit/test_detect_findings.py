"""Every fault of a data set of boxes is found once, with its files and what to do, before a training and in a check."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridvit.card import Preprocessing
from hybridvit.cli.main import main
from hybridvit.data.check import check_images
from hybridvit.data.check_report import Finding
from hybridvit.errors import DatasetError
from hybridvit.tasks.detect.config import DetectAugmentConfig, DetectData
from hybridvit.tasks.detect.data import DrawnAs, geometry_of, open_files
from hybridvit.tasks.detect.task import Detect

WIDTH, HEIGHT = 60, 40
CHANCE = np.random.default_rng(0)


def paint(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(CHANCE.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path, exif=exif)
    return path.read_bytes()


class Coco:
    """A set that grows picture by picture; each has one good object unless others are given."""

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = root, split
        self.content: dict[str, Any] = {
            "images": [], "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in ((1, "cat"), (3, "dog"), (4, "cow"))],
        }  # fmt: skip

    def add(self, name: str, *objects: dict[str, Any], size: tuple[int, int] = (WIDTH, HEIGHT), there: bool = True,
            orientation: int = 1, **image: Any) -> None:  # fmt: skip
        if there:
            paint(self.root / self.split / name, size, orientation)
        number = len(self.content["images"]) + 1
        listed = {"id": number, "file_name": name, "width": size[0], "height": size[1], **image}
        self.content["images"].append(listed)
        for each in objects or ({},):
            left, top, width, height = box = (
                each.get("bbox", [5, 5, 20, 20])[:4] if len(each.get("bbox", "four")) == 4 else (0, 0, 9, 9)
            )
            corners = [left, top, left + width, top, left + width, top + height, left, top + height]
            entry = {"id": len(self.content["annotations"]) + 1, "image_id": listed["id"], "category_id": 1,
                     "bbox": list(box), "segmentation": [corners], "iscrowd": 0}  # fmt: skip
            entry = {key: value for key, value in (entry | each).items() if value is not None}
            self.content["annotations"].append(entry)

    def write(self) -> None:
        file = self.root / "annotations" / f"instances_{self.split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(self.content))


def findings(root: Path) -> dict[str, Finding]:
    contents = Detect().contents(str(root))
    assert contents is not None
    found = check_images(contents, workers=0).findings
    assert len({each.kind for each in found}) == len(found), "a kind is found twice"
    return {each.kind: each for each in found}


def opens(root: Path, **keys: Any) -> Any:
    data = DetectData(root=str(root), image_size=32, max_size=96, **keys)
    drawn = DrawnAs(preprocessing=Preprocessing(), geometry=geometry_of(DetectAugmentConfig(), data))
    return open_files(data, drawn, DrawnAs(preprocessing=Preprocessing()))


FAULTS: dict[str, tuple[str, str]] = {
    "missing-image": ("error", "train/gone.png"),
    "image-size": ("error", "train/sized.png: 60x40, listed as 50x50"),
    "image-turned": ("note", "train/turned.jpg"),
    "turn-unclear": ("warning", "train/square.jpg"),
    "empty-box": ("warning", "train/flat.png: 5, 5, 5, 25"),
    "beyond-image": ("warning", "train/over.png (60x40): 40, 5, 63, 25"),
    "far-beyond-image": ("error", "train/far.png (60x40): 50, 5, 90, 25"),
    "duplicate-box": ("warning", "train/twice.png: 5, 5, 25, 25.1"),
    "unknown-category": ("error", "strange.png, annotation {}: category 77"),
    "duplicate-category": ("error", "instances_train.json: 3"),
    "other-categories": ("error", "instances_val.json: 9 (bird)"),
    "duplicate-image-id": ("error", "instances_train.json: 500"),
    "duplicate-image": ("warning", "instances_train.json: good.png"),
    "duplicate-annotation-id": ("warning", "instances_train.json: 1"),
    "no-image": ("warning", "instances_train.json: picture 999, annotation {}"),
    "rle-size": ("error", "rle.png, annotation {}: 40x60 of 60x40"),
    "bad-mask": ("error", "runs.png, annotation {}: its runs add up to 7, not to 2400"),
    "short-polygon": ("warning", "short.png, annotation {}: 2 points"),
    "empty-mask": ("warning", "hollow.png, annotation {}"),
    "no-mask": ("warning", "train/bare.png"),
    "bad-row": ("error", "row.png, annotation {}: bbox [1, 2, 3]"),
    "undecodable": ("error", "train/broken.png"),
    "leak": ("warning", "train/first.png = val/copy.png"),
    "missing-class": ("warning", "dog"),
    "empty-class": ("warning", "train/cow"),
    "no-label": ("note", "train/strange.png"),
    "rotated": ("note", "train/square.jpg (32x32)"),
}


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "nasty"
    train, val = Coco(root, "train"), Coco(root, "val")
    train.add("first.png")
    train.add("good.png", {"category_id": 3}, {})
    train.add("gone.png", there=False)
    train.add("sized.png", width=50, height=50)
    train.add("turned.jpg", orientation=6)
    train.add("square.jpg", size=(32, 32), orientation=3)
    train.add("flat.png", {"bbox": [5, 5, 0, 20], "segmentation": [[1, 1, 9, 1, 9, 9]]})
    train.add("over.png", {"bbox": [40, 5, 23, 20]})
    train.add("far.png", {"bbox": [50, 5, 40, 20]})
    train.add("twice.png", {}, {"bbox": [5, 5, 20, 20.1]}, {"category_id": 3})
    train.add("strange.png", {"category_id": 77})
    train.content["categories"].append({"id": 3, "name": "dog"})
    train.add("same.png", id=500)
    train.add("other.png", {"bbox": [30, 5, 9, 9]}, id=500)
    train.add("good.png", there=False)
    train.add("numbered.png", {"id": 1})
    train.add("here.png", {"image_id": 999}, {})
    train.add("rle.png", {"segmentation": {"size": [60, 40], "counts": [100, 50, 2250]}})
    train.add("runs.png", {"segmentation": {"size": [40, 60], "counts": [3, 4]}})
    train.add("short.png", {}, {"bbox": [30, 5, 9, 9], "segmentation": [[30, 5, 39, 14], [30, 5, 39, 5, 39, 14]]})
    train.add("hollow.png", {}, {"segmentation": {"size": [40, 60], "counts": [2400]}})
    train.add("bare.png", {"segmentation": None})
    train.add("row.png", {"bbox": [1, 2, 3]})
    train.add("broken.png")
    (root / "train" / "broken.png").write_bytes(paint(root / "train" / "broken.png")[:300])
    val.add("copy.png")
    (root / "val" / "copy.png").write_bytes((root / "train" / "first.png").read_bytes())
    val.add("bird.png", {}, {"category_id": 9, "bbox": [40, 5, 9, 9]})
    val.content["categories"].append({"id": 9, "name": "bird"})
    train.write()
    val.write()
    return root


def test_each_fault_is_found_once_with_its_file_and_its_fix(nasty: Path) -> None:
    found = findings(nasty)
    also = {"rle-size", "bad-mask"}  # their objects are left without a mask
    assert set(found) == set(FAULTS)
    assert found["rotated"].what.endswith("(9.1% of all)")
    for kind, (severity, example) in FAULTS.items():
        assert found[kind].severity == severity, kind
        first, _, last = example.partition("{}")
        first_found = min(found[kind].examples, key=lambda each: not each.startswith(first))
        assert first_found.startswith(first), found[kind].examples
        assert first_found.endswith(last), found[kind].examples
        assert found[kind].fix or kind in ("undecodable", "leak", "missing-class", "empty-class", "no-label", "rotated")
        counts = {"unknown-category": 2, "no-mask": 1 + len(also), "rotated": 2, "missing-class": 2, "no-label": 2}
        assert found[kind].number == counts.get(kind, 1), (kind, found[kind].examples)


def test_check_data_finds_it_by_looking(nasty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(nasty), "--workers", "0"]) == 3
    out = capsys.readouterr().out
    assert "  Pictures that the list names and that are not there: 1\n    train/gone.png\n    Fix: Add the files" in out


def test_errors_refuse_a_training_before_its_first_step_and_warnings_are_remarks(nasty: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as refusal:
        opens(nasty)
    for kind, (severity, example) in FAULTS.items():
        if severity == "error" and kind not in ("undecodable", "other-categories"):
            assert example.partition("{}")[0] in str(refusal.value), kind
    train, val = Coco(tmp_path, "train"), Coco(tmp_path, "val")
    outline = [[5, 5, 28, 5, 28, 25, 5, 25]]
    train.add("flat.png", {"bbox": [5, 5, 0, 20], "segmentation": outline}, {"category_id": 3, "bbox": [5, 5, 23, 20]})
    val.add("good.png")
    train.write()
    val.write()
    images, _ = opens(tmp_path)
    assert any(
        each.startswith("Boxes without width or height, which are left out: 1 (train/flat.png")
        for each in images.remarks
    )
    assert "No training object is of 'cat', 'cow': the model learns never to say so." in images.remarks
    assert len(images.draw(0, 0).target["boxes"]) == 1


def one_list(root: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, Finding]:
    train = Coco(root, "train")
    for number in range(4):
        train.add(f"{number}.png", {"bbox": [30, 20, 25, 15]})
    for each in train.content["annotations"]:
        each.update(change(each))
    train.write()
    return findings(root)


def test_boxes_that_are_written_another_way_are_told_apart(tmp_path: Path) -> None:
    found = one_list(tmp_path / "corners", lambda each: {"bbox": [30, 20, 55, 35], "segmentation": None})
    assert found["box-form"].number == 4
    assert found["box-form"].examples[0] == "as read 0% fit, the other way 100%"
    found = one_list(tmp_path / "shares", lambda each: {"bbox": [0.5, 0.5, 0.2, 0.3], "segmentation": None})
    assert found["normalised"].number == 4
    table = tmp_path / "table" / "train.csv"
    table.parent.mkdir()
    paint(table.parent / "a.png")
    table.write_text("file,x1,y1,x2,y2,label\na.png,30,20,25,15,cat\na.png,40,25,15,10,cat\n")
    found = findings(table.parent)
    assert {"box-form"} <= set(found)
    assert "empty-box" not in found


def test_many_crowds_are_a_fault_of_the_program_that_wrote_them(tmp_path: Path) -> None:
    found = one_list(tmp_path, lambda each: {"iscrowd": int(each["image_id"] < 3)})
    assert (found["many-crowds"].number, found["many-crowds"].severity) == (2, "warning")
    assert "many-crowds" not in one_list(tmp_path / "none", lambda each: {})


def test_lines_of_yolo_that_make_no_sense_are_named(tmp_path: Path) -> None:
    lines = {"a": "0 0.5 0.5 0.2 0.2\n0 30 20 25 15", "b": "0 0.5 half 0.2 0.2", "c": "7 0.5 0.5 0.2 0.2",
             "d": "0 0.1 0.1 0.2 0.2 0.3", "e": "0 0.1 0.1 0.9 0.1 0.1 0.1 0.1"}  # fmt: skip
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    for name, text in lines.items():
        paint(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text(text)
    paint(tmp_path / "images" / "negative.png")
    found = findings(tmp_path)
    assert found["absolute"].examples == ("labels/a.txt, line 2: 0 30 20 25 15",)
    assert found["bad-row"].examples[:2] == (
        "labels/b.txt, line 1: 0 0.5 half 0.2 0.2",
        "labels/d.txt, line 1: 0 0.1 0.1 0.2 0.2 0.3",
    )
    assert found["unknown-category"].examples == ("labels/c.txt, line 1: category 7",)
    assert found["no-list"].examples == ("images/negative.png",)
    assert found["no-list"].severity == "note"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "categories": [', "cannot be read as JSON"),
        ('{"images": [], "categories": []}', "has no list 'annotations' of objects, so it is no COCO annotation file"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "an entry of 'images' has no id or file_name"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        opens(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("annotations/instances_train2017.json", "", "instances_train2017.json cannot be read as JSON"),
        ("annotations/instances_train2017.json", '{"imag', "instances_train2017.json cannot be read as JSON"),
        ("train/_annotations.coco.json", "<html>", "_annotations.coco.json cannot be read as JSON"),
        ("data.yaml", "names: [cat", "data.yaml cannot be read as YAML"),
        ("data.yaml", "train: images/train\n", "data.yaml has no 'names', so it is no data.yaml of YOLO"),
    ],
)
def test_a_damaged_list_is_known_by_its_place(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        opens(tmp_path)


def test_run_lengths_that_would_write_beyond_the_picture_are_bad_masks(tmp_path: Path) -> None:
    for number, counts in enumerate(("PPPPPPPP0", "0~", "XR?")):
        found = one_list(
            tmp_path / str(number), lambda each, c=counts: {"segmentation": {"size": [40, 60], "counts": c}}
        )
        assert found["bad-mask"].number == 4


def test_folders_of_other_tasks_are_no_data_set_of_boxes(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat" / "a.png")
    (tmp_path / "labels.csv").write_text("path,label\na.png,cat\n")
    assert Detect().contents(str(tmp_path)) is None
    assert Detect().contents(os.fspath(tmp_path / "labels.csv")) is None
