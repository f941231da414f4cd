"""Pictures with boxes and masks, as the usual programs write them, are read alike."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.scenes import CATEGORY_IDS, write_detection
from hybridvit.errors import DatasetError, ImageDecodeError, UsageError
from hybridvit.recipe.file import load_recipe
from hybridvit.tasks.detect.config import DetectAugmentConfig, DetectData
from hybridvit.tasks.detect.data import (
    DetectionFiles,
    DrawnAs,
    batched,
    geometry_of,
    open_files,
    open_labelled,
    open_splits,
)
from hybridvit.tasks.detect.data_lists import Category
from hybridvit.tasks.detect.data_masks import decode

WIDTH, HEIGHT = 60, 40
BOXES = {"a": [(10, 5, 30, 25, "cat"), (40, 20, 60, 40, "dog")], "b": [(0, 0, 12, 8, "dog")], "empty": []}
"""What each picture shows, in pixels: left, top, right, bottom."""


def paint(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(levels).save(path, exif=exif)
    return path


def polygon(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco(ids: dict[str, Any] = {"cat": 3, "dog": 7}, masks: str = "polygons") -> dict[str, Any]:  # noqa: B006
    images = [
        {"id": 5 * n, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT} for n, name in enumerate(BOXES)
    ]
    annotations = []
    for number, boxes in enumerate(BOXES.values()):
        for left, top, right, bottom, name in boxes:
            filled = np.zeros((HEIGHT, WIDTH), bool)
            filled[top:bottom, left:right] = True
            runs = np.diff(np.flatnonzero(np.diff(np.concatenate(([2], filled.T.flatten(), [2])))))
            given: Any = [polygon(left, top, right, bottom)]
            if masks == "runs":
                given = {"size": [HEIGHT, WIDTH], "counts": [*([0] if filled[0, 0] else []), *runs.tolist()]}
            annotations.append({"id": len(annotations), "image_id": 5 * number, "category_id": ids[name],
                                "bbox": [left, top, right - left, bottom - top], "segmentation": given})  # fmt: skip
    return {"images": images, "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in ids.items()]}  # fmt: skip


def pictures(folder: Path, names: Any = BOXES) -> None:
    for name in names:
        paint(folder / f"{name}.png")


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def as_coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        content = coco()
        write(root / "annotations" / f"instances_{split}.json", {key: content[key] for key in sorted(content)})
        write(root / "annotations" / f"captions_{split}.json", {"images": [], "annotations": []})
        pictures(root / split)


def as_run_lengths(root: Path) -> None:
    for split in ("train", "val"):
        write(root / "annotations" / f"instances_{split}.json", coco(masks="runs"))
        pictures(root / "images" / split)


def as_roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        content = coco({"cat": 1, "dog": 2})
        content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
        for each in content["categories"][1:]:
            each["supercategory"] = "animals"
        write(root / split / "_annotations.coco.json", content)
        pictures(root / split)


def as_cvat(root: Path) -> None:
    write(root / "annotations" / "instances_default.json", coco({"cat": 0, "dog": 1}))
    pictures(root / "images" / "default")


def as_text_ids(root: Path) -> None:
    for split in ("train", "val"):
        write(root / f"{split}.json", coco({"cat": "a", "dog": "b"}))
    pictures(root)


def rows(boxes: list[tuple[int, int, int, int, str]], polygons: bool) -> str:
    lines = []
    for left, top, right, bottom, name in boxes:
        number = ["cat", "dog"].index(name)
        corners = [
            value / (HEIGHT if place % 2 else WIDTH) for place, value in enumerate(polygon(left, top, right, bottom))
        ]
        centre = [(left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT]
        sides = [(right - left) / WIDTH, (bottom - top) / HEIGHT]
        lines.append(" ".join(map(str, [number, *(corners if polygons else [*centre, *sides])])))
    return "\n".join(lines)


def as_yolo(root: Path, polygons: bool = False) -> None:
    write(root / "data.yaml", "path: ../elsewhere\ntrain: images/train\nval: ../images/val\nnames: {0: cat, 1: dog}\n")
    for split in ("train", "val"):
        pictures(root / "images" / split)
        for name in ("a", "b"):  # the third has no file
            write(root / "labels" / split / f"{name}.txt", rows(BOXES[name], polygons))


def as_yolo_polygons(root: Path) -> None:
    as_yolo(root, polygons=True)


def as_voc(root: Path) -> None:
    pictures(root / "JPEGImages")
    for name, boxes in BOXES.items():
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object>"
            for left, top, right, bottom, label in boxes
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        write(
            root / "Annotations" / f"{name}.xml",
            f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>",
        )
    for split in ("train", "val", "trainval", "cat_train"):
        write(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(BOXES))


def as_csv(root: Path) -> None:
    lines = ["file,x1,y1,x2,y2,label"]
    for name, boxes in BOXES.items():
        lines += [f"{name}.png,{','.join(map(str, box))}" for box in boxes] or [f"{name}.png,,,,,"]
    for split in ("train", "val"):
        write(root / f"{split}.csv", "\n".join(lines))
    pictures(root)


def as_labelme(root: Path) -> None:
    for split in ("train", "val"):
        pictures(root / split)
        for name in ("a", "b"):
            shapes = [
                {"label": label, "shape_type": "polygon", "points": np.reshape(polygon(*sides), (-1, 2)).tolist()}
                for *sides, label in BOXES[name]
            ]
            content = {"shapes": shapes, "imagePath": f"{name}.png", "imageWidth": WIDTH, "imageHeight": HEIGHT}
            write(root / split / f"{name}.json", content)


LAYOUTS = {
    as_coco: ("COCO", (3, 7), True),
    as_run_lengths: ("COCO", (3, 7), True),
    as_roboflow: ("COCO", (1, 2), True),
    as_text_ids: ("COCO", ("a", "b"), True),
    as_yolo: ("YOLO", (0, 1), False),
    as_yolo_polygons: ("YOLO", (0, 1), True),
    as_voc: ("Pascal VOC", (1, 2), False),
    as_csv: ("CSV", (1, 2), False),
    as_labelme: ("LabelMe", (1, 2), True),
}


def opened(root: Path, **keys: Any) -> tuple[DetectionFiles, DetectionFiles]:
    data = DetectData(root=str(root), image_size=32, max_size=96, **keys)
    preprocessing = Preprocessing(image_size=(32, 32), crop_mode="fit", fit_px=(32, 96), interpolation="bilinear")
    geometry = geometry_of(DetectAugmentConfig(hflip=0.0), data)
    drawn = DrawnAs(preprocessing=preprocessing, geometry=geometry, sizes=data.train_sizes,
                    min_area=data.min_area, max_instances=data.max_instances)  # fmt: skip
    return open_files(data, drawn, DrawnAs(preprocessing=preprocessing))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__.removeprefix("as_"))
def test_the_same_pictures_are_read_from_every_layout(layout: Callable[[Path], None], tmp_path: Path) -> None:
    _, ids, has_masks = LAYOUTS[layout]
    layout(tmp_path / "set")
    for images in opened(tmp_path / "set"):
        assert images.categories == (Category(ids[0], "cat"), Category(ids[1], "dog"))
        assert images.has_masks is has_masks
        by_name = {Path(each.path).stem: each for each in images.pictures}
        assert set(by_name) == set(BOXES)
        for name, boxes in BOXES.items():
            np.testing.assert_allclose(
                by_name[name].boxes, np.reshape([each[:4] for each in boxes], (-1, 4)), atol=1e-6
            )
            assert [images.class_names[label] for label in by_name[name].labels] == [each[4] for each in boxes]
    _, validation = opened(tmp_path / "set")
    number = [Path(path).stem for path in validation.paths].index("a")
    sample = validation.draw(0, number)
    assert sample.frame is not None
    assert sample.frame.input_size == (32, 48)
    torch.testing.assert_close(sample.target["boxes"], torch.tensor([[8.0, 4, 24, 20], [32, 16, 48, 32]]))
    truth = sample.target["truth"]
    assert truth.areas == pytest.approx([400, 400])
    if has_masks:
        (first, second) = decode(truth.masks)
        assert first[5:25, 10:30].all()
        assert first.sum() == second.sum() == 400


def test_what_one_list_has_is_held_out_in_part(tmp_path: Path) -> None:
    as_cvat(tmp_path)
    with pytest.raises(
        DatasetError, match=r"no split 'val' \(data.val\); its splits are: 'default'.*--data.val_share 0.1"
    ):
        opened(tmp_path)
    train, validation = opened(tmp_path, val_share=0.4)
    assert train.categories == validation.categories == (Category(0, "cat"), Category(1, "dog"))
    assert len(train) + len(validation) == 3
    assert set(train.paths).isdisjoint(validation.paths)
    assert train.fingerprint != validation.fingerprint


def test_an_unknown_layout_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png")
    with pytest.raises(DatasetError, match=r"is not laid out as any data set of boxes.*YOLO.*It holds: 'photos'"):
        opened(tmp_path)


def test_pictures_without_objects_are_samples_and_a_batch_is_padded(tmp_path: Path) -> None:
    as_coco(tmp_path)
    train, _ = opened(tmp_path)
    batch = batched([train.draw(0, number) for number in range(3)])
    assert batch.inputs.shape == (3, 3, 32, 48)
    assert [len(target["boxes"]) for target in batch.targets] == [2, 1, 0]
    assert batch.targets[2]["masks"].shape == (0, 32, 48)
    assert batch.targets[2]["boxes"].shape == (0, 4)
    paint(tmp_path / "train2017" / "a.png", (WIDTH, HEIGHT))
    tall = train.draw(0, 0)._replace(image=torch.ones(3, 70, 40))
    batch = batched([tall, train.draw(0, 1)])
    assert batch.inputs.shape == (2, 3, 96, 64)  # multiples of 32
    assert batch.inputs[0, :, :70, :40].eq(1).all()
    assert batch.inputs[0, :, 70:].eq(0).all()
    assert [target["size"].tolist() for target in batch.targets] == [[32, 48], [32, 48]]


def test_crowds_small_objects_and_those_beyond_the_most_count_neither_way(tmp_path: Path) -> None:
    as_coco(tmp_path)
    list_ = tmp_path / "annotations" / "instances_train2017.json"
    content = coco()
    content["annotations"][0]["iscrowd"] = 1
    write(list_, content)
    train, _ = opened(tmp_path)
    targets = [train.draw(0, number).target for number in (0, 1)]
    assert [(len(each["labels"]), len(each["ignored"]), len(each["masks"])) for each in targets] == [
        (1, 1, 1),
        (1, 0, 1),
    ]
    train, _ = opened(tmp_path, min_area=200)
    target = train.draw(0, 1).target
    assert (len(target["labels"]), len(target["ignored"])) == (0, 1)
    write(list_, coco())
    train, _ = opened(tmp_path, max_instances=1)
    target = train.draw(0, 0).target
    assert (len(target["labels"]), len(target["ignored"])) == (1, 1)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_of_the_stored_picture_are_turned_with_it(orientation: int, tmp_path: Path) -> None:
    """A bright rectangle lies where its box and its mask say, in the upright picture."""
    as_coco(tmp_path)
    levels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    levels[5:25, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split in ("train2017", "val2017"):
        Image.fromarray(levels).save(tmp_path / split / "a.png", exif=exif)
    sample = opened(tmp_path)[1].draw(0, 0)
    truth = sample.target["truth"]
    turned = orientation >= 5
    assert truth.size == ((WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH))
    if not turned:  # width and height do not tell that the boxes are those of the stored picture
        assert truth.boxes[0].tolist() == [10, 5, 30, 25]
        return
    left, top, right, bottom = truth.boxes[0].astype(int).tolist()
    with Image.open(tmp_path / "val2017" / "a.png") as stored:
        from PIL import ImageOps

        upright = np.array(ImageOps.exif_transpose(stored))[..., 0]
    bright = np.zeros_like(upright)
    bright[top:bottom, left:right] = 255
    assert (upright == bright).all()
    assert (decode(truth.masks)[0] * 255 == upright).all()


def test_a_picture_of_another_size_than_listed_is_a_bad_file(tmp_path: Path) -> None:
    as_coco(tmp_path)
    train, _ = opened(tmp_path)
    paint(tmp_path / "train2017" / "a.png", (50, 50))
    with pytest.raises(
        ImageDecodeError, match="has 50x50 pixels, but is listed with 60x40, so its boxes lie elsewhere"
    ):
        train[0]


def test_a_trained_model_judges_a_set_by_the_ids_that_it_learnt(tmp_path: Path) -> None:
    as_coco(tmp_path)
    card = ModelCard(
        architecture="fastvit_debug",
        task="detect",
        class_names=("cat", "dog"),
        class_facts={"category_ids": (3, 7)},
        preprocessing=Preprocessing(crop_mode="fit", fit_px=(32, 96)),
    )
    images = open_labelled(str(tmp_path), card)
    assert [Path(path).parent.name for path in images.paths] == ["val2017"] * 3
    assert open_labelled(str(tmp_path / "annotations" / "instances_val2017.json"), card).class_names == ("cat", "dog")
    other = ModelCard(
        architecture="fastvit_debug", task="detect", class_names=("cow",), class_facts={"category_ids": (9,)}
    )
    with pytest.raises(DatasetError, match="Objects of a category that the data set does not list"):
        open_labelled(str(tmp_path), other)


def test_scenes_meet_what_real_sets_have(tmp_path: Path) -> None:
    write_detection(tmp_path / "scenes", train=8, val=2)
    train, _ = opened(tmp_path / "scenes")
    assert tuple(category.id for category in train.categories) == CATEGORY_IDS
    assert train.has_masks
    assert any(each.crowd.any() for each in train.pictures)


def test_equal_seeds_give_equal_samples_and_steps_have_their_sizes(tmp_path: Path) -> None:
    as_coco(tmp_path)
    train, _ = opened(tmp_path, train_sizes=(32, 48, 64))
    shapes = {tuple(train.draw(0, 0, step).image.shape[1:]) for step in range(12)}
    assert shapes == {(32, 48), (48, 72), (64, 96)}
    for step in range(12):
        assert train.draw(0, 0, step).image.shape == train.draw(1, 1, step).image.shape
    assert torch.equal(train.draw(1, 0, 2).image, opened(tmp_path, train_sizes=(32, 48, 64))[0].draw(1, 0, 2).image)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'data.max_size' is 700, but it must be at least 800"):
        DetectData(max_size=700)
    with pytest.raises(UsageError, match=r"'data.crop_fraction' is 0.5, but detection shows pictures whole"):
        DetectData(crop_fraction=0.5)
    with pytest.raises(UsageError, match=r"'augment.jitter' is \[2.0, 0.1\], but must be the least and the most"):
        DetectAugmentConfig(jitter=(2.0, 0.1))


def test_copies_of_a_set_have_one_fingerprint(tmp_path: Path) -> None:
    as_coco(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert opened(tmp_path / "one")[0].fingerprint == opened(tmp_path / "two")[0].fingerprint


def test_a_training_is_refused_at_once_where_its_answers_could_not_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    recipe = load_recipe("detect_scenes", {"data.root": str(tmp_path / "scenes")})
    told = r'Detection needs the package faster-coco-eval. Run: pip install "hybridvit\[detection\]"'
    with pytest.raises(UsageError, match=told):
        open_splits(recipe)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match=told):
        open_labelled(str(tmp_path), ModelCard(architecture="fastvit_debug", task="detect"))
